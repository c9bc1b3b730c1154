"""The options by which a plan is told at the command line: the same for its launch and for the question before it."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from server.federation.privacy import Measure, choose
from server.federation.recipe import read_recipe
from server.federation.schemas import RunPlan
from server.federation.strategies.registry import StrategyName
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass, parse_class
from shared.contracts.privacy import PrivacyUnit

_Parameter = Annotated[float | None, typer.Option(help="Of the strategy; else its default.")]
_PRIVACY_PANEL = "Privacy"
_Privacy = Annotated[
    Measure,
    typer.Option(
        help="none; dp-sgd: noise at the hospitals; central-dp: noise at the centre; secure-aggregation: the centre"
        " sees the hospitals' sum only.",
        rich_help_panel=_PRIVACY_PANEL,
    ),
]
_Epsilon = Annotated[
    float | None, typer.Option(help="Of the whole run; smaller is more private [8].", rich_help_panel=_PRIVACY_PANEL)
]
_Delta = Annotated[float | None, typer.Option(help="Of the whole run [1e-5].", rich_help_panel=_PRIVACY_PANEL)]
_Clip = Annotated[
    float | None,
    typer.Option(
        help="Largest norm of a unit's gradient, or of a hospital's update [1].", rich_help_panel=_PRIVACY_PANEL
    ),
]
_Unit = Annotated[PrivacyUnit | None, typer.Option(help="Whom dp-sgd hides [image].", rich_help_panel=_PRIVACY_PANEL)]
_PANEL = "Recipe"


def _part(text: str) -> Any:  # Any: typer's own description of an option
    """Describe an option that is a part of the recipe; the contract says what it may be."""
    return typer.Option(help=text, rich_help_panel=_PANEL)


def planning(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a plan in the place of its parameter ``plan``."""
    options = inspect.signature(told).parameters
    own = [one for name, one in inspect.signature(command).parameters.items() if name != "plan"]

    @functools.wraps(command)
    def planned(**given: Any) -> None:  # Any: what typer has read by the signature below
        command(told(**{name: given.pop(name) for name in options}), **given)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*options.values(), *own)]
    planned.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]  # a function may have one
    planned.__annotations__ = {one.name: one.annotation for one in parameters}
    return planned


def told(
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 3,
    min_sites: Annotated[int, typer.Option(min=1, help="How many hospitals a round needs.")] = 2,
    site: Annotated[
        list[str] | None, typer.Option(help="Hospital to ask, by its id; once for each. Else every approved one.")
    ] = None,
    deadline: Annotated[int, typer.Option(min=30, max=86400, help="Seconds a round may take.")] = 600,
    classes: Annotated[str | None, typer.Option(help="Comma-separated classes; else what the censuses hold.")] = None,
    strategy: Annotated[
        StrategyName, typer.Option(help="How updates become one model; `federate strategies` tells of each.")
    ] = StrategyName.FEDAVG,
    server_learning_rate: _Parameter = None,
    momentum: _Parameter = None,
    beta_1: _Parameter = None,
    beta_2: _Parameter = None,
    tau: _Parameter = None,
    proximal_mu: _Parameter = None,
    trim_share: _Parameter = None,
    byzantine_sites: Annotated[int | None, typer.Option(help="Of the strategy; else its default.")] = None,
    norm_limit: Annotated[float | None, typer.Option(help="Refuse updates so many times the median; 0: none.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with fields of the recipe.", rich_help_panel=_PANEL)
    ] = None,
    backbone: Annotated[str | None, _part("Network to train; see docs/backbones.md.")] = None,
    frozen_stages: Annotated[int | None, _part("Stages that stay as pretrained; 0: all learn.")] = None,
    input_size: Annotated[int | None, _part("Side in pixels of what the network sees.")] = None,
    local_epochs: Annotated[int | None, _part("Passes over a hospital's cells, a round.")] = None,
    head_epochs: Annotated[int | None, _part("So many of the first round's passes teach the head alone.")] = None,
    patience: Annotated[int | None, _part("Stop after so many passes without gain; 0: never.")] = None,
    batch_size: Annotated[int | None, _part("Cells a step.")] = None,
    learning_rate: Annotated[float | None, _part("Of the stages that learn.")] = None,
    head_learning_rate: Annotated[float | None, _part("Of the head.")] = None,
    last_rate: Annotated[float | None, _part("Share of the learning rates left in the last round; 1: all.")] = None,
    ema: Annotated[float | None, _part("Decay a step of the weights' moving average; 0: none.")] = None,
    augmentation: Annotated[str | None, _part("How far looks at a cell go: subtle, mild, strong.")] = None,
    views: Annotated[int | None, _part("Looks kept of each cell in front of frozen stages.")] = None,
    balance: Annotated[str | None, _part("What is done about rare classes: sampler, logit, focal, none.")] = None,
    local_normalisation: Annotated[
        bool | None, _part("Each hospital keeps its own normalisation (FedBN) [off].")
    ] = None,
    seed: Annotated[int | None, _part("Of all random numbers.")] = None,
    privacy: _Privacy = Measure.NONE,
    epsilon: _Epsilon = None,
    delta: _Delta = None,
    clip: _Clip = None,
    unit: _Unit = None,
) -> RunPlan:
    """Return the plan that these options tell.

    Raises:
        NotFoundError, UsageError: the recipe's file, a class or the privacy is wrong.
    """
    given = {
        "backbone": backbone, "frozen_stages": frozen_stages, "input_size": input_size, "local_epochs": local_epochs,
        "head_epochs": head_epochs, "patience": patience, "batch_size": batch_size, "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate, "last_rate": last_rate, "ema": ema, "augmentation": augmentation,
        "views": views, "balance": balance, "local_normalisation": local_normalisation, "seed": seed,
    }  # fmt: skip
    parameters = {
        "server_learning_rate": server_learning_rate,
        "momentum": momentum,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "tau": tau,
        "proximal_mu": proximal_mu,
        "trim_share": trim_share,
        "byzantine_sites": byzantine_sites,
        "norm_limit": norm_limit,
    }
    return RunPlan(
        rounds=rounds,
        recipe={
            **(read_recipe(recipe) if recipe else {}),
            **{name: value for name, value in given.items() if value is not None},
        },
        min_sites=min_sites,
        sites=site or None,
        round_deadline_seconds=deadline,
        classes=[_class(name) for name in classes.split(",")] if classes else None,
        strategy=strategy,
        strategy_parameters={name: value for name, value in parameters.items() if value is not None},
        privacy=choose(privacy, epsilon=epsilon, delta=delta, clip=clip, unit=unit),
    )


def _class(name: str) -> CellClass:
    cls = parse_class(name)
    if cls is None:
        raise UsageError(f"There is no cell class {name.strip()!r}.")
    return cls
