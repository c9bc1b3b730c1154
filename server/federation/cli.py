"""``hematovision-server federate``: launch, look at, follow and steer federated runs."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlmodel import Session

from server.accounts.schemas import COMMAND_LINE, Principal
from server.commands import HomeOption, JsonOption, emit
from server.db.session import Database
from server.federation import drift, dry_run, schedule_cli, service, steering
from server.federation.cli_text import percent, print_census, print_drift, print_dry_run, print_run
from server.federation.forecast import DryRunView
from server.federation.privacy import Measure, choose
from server.federation.recipe import read_recipe
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from server.federation.strategies.registry import StrategyName
from server.federation.watch import watch as follow
from server.settings import load_settings
from shared.contracts.errors import DependencyMissingError, RunFailedError, UsageError
from shared.contracts.ontology import parse_class
from shared.contracts.privacy import PrivacyUnit

app = typer.Typer(help="Launch, follow and steer federated runs.")
app.add_typer(schedule_cli.app, name="schedule")

_Parameter = Annotated[float | None, typer.Option(help="Of the strategy; else its default.")]
_PRIVACY_PANEL = "Privacy"
_Privacy = Annotated[
    Measure,
    typer.Option(
        help="none; dp-sgd: noise at the hospitals; central-dp: noise at the centre; secure-aggregation: the centre"
        " sees the hospitals' sum only (with --norm-limit 0).",
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
RunArgument = Annotated[str | None, typer.Argument(help="Run key; the newest run if left out.")]
_ACTOR: Principal = COMMAND_LINE
_PANEL = "Recipe"


def _part(text: str) -> Any:  # Any: typer's own description of an option
    """Describe an option that is a part of the recipe; the contract says what it may be."""
    return typer.Option(help=text, rich_help_panel=_PANEL)


@app.command()
def start(
    home: HomeOption = None,
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 3,
    min_sites: Annotated[int, typer.Option(min=1, help="How many hospitals a round needs.")] = 2,
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
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Launch a run. What of the recipe is not given is what a launch starts from; options go before the file."""
    given = {
        "backbone": backbone, "frozen_stages": frozen_stages, "input_size": input_size, "local_epochs": local_epochs,
        "head_epochs": head_epochs, "patience": patience, "batch_size": batch_size, "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate, "last_rate": last_rate, "ema": ema, "augmentation": augmentation,
        "views": views, "balance": balance, "local_normalisation": local_normalisation, "seed": seed,
    }  # fmt: skip
    database = _database(home)
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
    plan = RunPlan(
        rounds=rounds,
        recipe={
            **(read_recipe(recipe) if recipe else {}),
            **{name: value for name, value in given.items() if value is not None},
        },
        min_sites=min_sites,
        round_deadline_seconds=deadline,
        classes=[_class(name) for name in classes.split(",")] if classes else None,
        strategy=strategy,
        strategy_parameters={name: value for name, value in parameters.items() if value is not None},
        privacy=choose(privacy, epsilon=epsilon, delta=delta, clip=clip, unit=unit),
    )
    with database.session() as session:
        sites = service.census(session, _ACTOR)
        if not as_json:
            print_census(sites)
            print_drift(drift.drift(session, _ACTOR, sites), drift.DAYS)
        run_id = service.start_run(session, _ACTOR, plan)
    if not as_json:
        Console().print(f"Run [bold]{run_id}[/bold] is launched.")
    if wait:
        _follow(database, run_id, as_json=as_json)
    elif as_json:
        emit(_view(database, run_id), as_json=True)


@app.command()
def census(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what each hospital could train on, and how far apart the hospitals lie."""
    with _database(home).session(read_only=True) as session:
        sites = service.census(session, _ACTOR)
        apart = drift.drift(session, _ACTOR, sites)
    if as_json:
        told = {"census": [site.model_dump(mode="json", by_alias=True) for site in sites]}
        emit({**told, "drift": [site.model_dump(mode="json") for site in apart]}, as_json=True)
        return
    print_census(sites)
    print_drift(apart, drift.DAYS)


@app.command("dry-run")
def ask_first(
    home: HomeOption = None,
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 3,
    local_epochs: Annotated[int | None, typer.Option(min=1, max=50)] = None,
    min_sites: Annotated[int, typer.Option(min=1, help="How many hospitals a round needs.")] = 2,
    classes: Annotated[str | None, typer.Option(help="Comma-separated classes; else what the censuses hold.")] = None,
    strategy: Annotated[StrategyName, typer.Option(help="As for start.")] = StrategyName.FEDAVG,
    privacy: _Privacy = Measure.NONE,
    epsilon: _Epsilon = None,
    delta: _Delta = None,
    clip: _Clip = None,
    unit: _Unit = None,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to wait for the answers.")] = 150,
    as_json: JsonOption = False,
) -> None:
    """Ask every hospital whether it would take part, and how long a round would be; nothing is trained."""
    database = _database(home)
    plan = RunPlan(
        rounds=rounds,
        local_epochs=local_epochs,
        min_sites=min_sites,
        classes=[_class(name) for name in classes.split(",")] if classes else None,
        strategy=strategy,
        privacy=choose(privacy, epsilon=epsilon, delta=delta, clip=clip, unit=unit),
    )
    with database.session() as session:
        dry_run_id = dry_run.start(session, _ACTOR, plan)
    view = _answers(database, dry_run_id, seconds)
    if as_json:
        emit({**view.model_dump(mode="json"), "willing": view.willing, "enough": view.enough}, as_json=True)
    else:
        print_dry_run(view)
    if view.problem:
        raise RunFailedError(view.problem)


@app.command()
def status(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a run: its rounds, hospitals and result."""
    database = _database(home)
    view = _view(database, _run_id(database, run))
    if as_json:
        emit(view, as_json=True)
    else:
        print_run(view)


@app.command()
def watch(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Follow a run's log book until it ends; with --json a line an event, then the whole run."""
    database = _database(home)
    _follow(database, _run_id(database, run), as_json=as_json)


@app.command()
def stop(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a run to stop."""
    _ask(service.request_stop, run, home, "will stop.", as_json=as_json)


@app.command()
def pause(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a run to pause once the round under way has ended."""
    _ask(steering.request_pause, run, home, "will pause after the round.", as_json=as_json)


@app.command()
def resume(
    run: RunArgument = None,
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a paused, stopped or failed run go on from its last checkpoint."""
    database = _database(home)
    run_id = _run_id(database, run)
    with database.session() as session:
        steering.resume(session, _ACTOR, run_id)
    _launched(database, run_id, f"Run {run_id} goes on.", wait=wait, as_json=as_json)


@app.command()
def clone(
    run: RunArgument = None,
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Launch a run by the plan of an earlier one."""
    database = _database(home)
    with database.session() as session:
        run_id = steering.clone(session, _ACTOR, run or service.latest_run_id(session, _ACTOR))
    _launched(database, run_id, f"Run {run_id} is launched.", wait=wait, as_json=as_json)


@app.command("list")
def list_runs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the newest runs."""
    with _database(home).session(read_only=True) as session:
        runs = service.list_runs(session, _ACTOR)
    if as_json:
        emit(runs, as_json=True)
        return
    table = Table("run", "state", "rounds", "accuracy", "model", "launched by")
    for run in runs:
        done = f"{run.rounds_done}/{run.rounds}"
        table.add_row(run.id, run.state, done, percent(run.accuracy), run.model_version or "", run.created_by)
    Console().print(table)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Simulate many hospitals on this machine: --hospitals 200, --updates-only; --help tells of all options.",
)
def simulate(context: typer.Context) -> None:
    """Hand over to a process of its own: the hospitals it stands for are the node's software, not the centre's."""
    try:
        found = importlib.util.find_spec("deploy.simulate") is not None
    except ModuleNotFoundError:  # `deploy` is absent itself.
        found = False
    if not found:
        raise DependencyMissingError("The simulation is not installed here: install hematovision whole, node and all.")
    done = subprocess.run([sys.executable, "-m", "deploy.simulate", *context.args], check=False)
    raise typer.Exit(done.returncode)


@app.command("strategies")
def list_strategies(as_json: JsonOption = False) -> None:
    """Tell which strategies there are, what each is for and what it can be told."""
    offered = service.offered_strategies()
    if as_json:
        emit(offered, as_json=True)
        return
    table = Table("strategy", "what it is for", "parameters (default)", "hospitals", show_lines=True)
    for one in offered:
        options = [f"--{entry.name.replace('_', '-')} {entry.default:g}" for entry in one.parameters]
        table.add_row(one.name, one.sentence, "\n".join(options), f"≥ {one.least_sites}")
    Console().print(table)


def _ask(
    what: Callable[[Session, Principal, str], None], run: str | None, home: Path | None, told: str, *, as_json: bool
) -> None:
    database = _database(home)
    run_id = _run_id(database, run)
    with database.session() as session:
        what(session, _ACTOR, run_id)
    emit(_view(database, run_id), as_json=as_json, text=f"Run {run_id} {told}")


def _launched(database: Database, run_id: str, text: str, *, wait: bool, as_json: bool) -> None:
    if not wait:
        emit(_view(database, run_id), as_json=as_json, text=text)
        return
    if not as_json:
        typer.echo(text)
    _follow(database, run_id, as_json=as_json)


def _follow(database: Database, run_id: str, *, as_json: bool) -> None:
    for event in follow(database, run_id):
        typer.echo(event.model_dump_json() if as_json else f"{event.at:%H:%M:%S}  {event.text}")
    view = _view(database, run_id)
    if as_json:
        typer.echo(view.model_dump_json())
    else:
        print_run(view)
    if view.state not in {RunState.COMPLETED, RunState.PAUSED}:
        raise RunFailedError(view.problem or "The run was stopped.")


def _answers(database: Database, dry_run_id: str, seconds: float) -> DryRunView:
    """Return a dry run once it has ended, or as it stands when the time is over."""
    end = time.monotonic() + seconds
    while True:
        with database.session(read_only=True) as session:
            view = dry_run.view(session, _ACTOR, dry_run_id)
        if view.ended or time.monotonic() > end:
            return view
        time.sleep(0.5)


def _database(home: Path | None) -> Database:
    return Database(load_settings(home).effective_database_url)


def _run_id(database: Database, given: str | None) -> str:
    if given:
        return given
    with database.session(read_only=True) as session:
        return service.latest_run_id(session, _ACTOR)


def _view(database: Database, run_id: str) -> RunView:
    with database.session(read_only=True) as session:
        return service.run_view(session, _ACTOR, run_id)


def _class(name: str) -> str:
    cls = parse_class(name)
    if cls is None:
        raise UsageError(f"There is no cell class {name.strip()!r}.")
    return cls
