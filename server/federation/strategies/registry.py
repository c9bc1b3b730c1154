"""Which strategies there are, their parameters and what each protects against, in words for coordinators.

Read by the web process, so nothing here imports Flower; `build` makes the strategies themselves. The defaults of the
server optimisers are for runs of 3 to 10 rounds, and weaker in momentum than their papers': see docs/adr/0008.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from shared.contracts.errors import UsageError
from shared.contracts.training import Recipe


class StrategyName(StrEnum):
    """The names at the command line and in the database."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"
    FEDAVGM = "fedavgm"
    FEDADAM = "fedadam"
    FEDYOGI = "fedyogi"
    TRIMMED_MEAN = "trimmed_mean"
    MULTIKRUM = "multikrum"


class Parameters(BaseModel):
    """A strategy as it is chosen: its parameters, and by its type which one it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[StrategyName]
    title: ClassVar[str]
    sentence: ClassVar[str]
    """What it is for, in one plain sentence."""
    streams: ClassVar[bool] = True
    """Whether the centre holds no more than a few updates at a time, however many hospitals there are."""
    compares: ClassVar[bool] = False
    """Whether it must see each hospital's own update."""

    norm_limit: float = Field(
        default=10.0,
        ge=0,
        le=1e6,
        title="Largest update",
        description="An update so many times as large as the round's median is refused; 0 turns this off.",
    )

    @property
    def least_sites(self) -> int:
        """How many hospitals a round needs for the strategy to do what it says."""
        return 1

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Return the parameters by name: the strategy's own first, then what all have in common."""
        return dict(sorted(cls.model_fields.items(), key=lambda item: item[0] in Parameters.model_fields))

    def asked(self, recipe: Recipe) -> Recipe:
        """Return what the nodes are asked to do: the recipe with the strategy's part of it."""
        return recipe


class FedAvgParameters(Parameters):
    """`fedavg.FedAvg`."""

    name = StrategyName.FEDAVG
    title = "FedAvg"
    sentence = "The hospitals' models are averaged, each counting alike: right where all can be trusted."


class FedProxParameters(Parameters):
    """`fedprox.FedProx`."""

    name = StrategyName.FEDPROX
    title = "FedProx"
    sentence = "Averages too, and holds each hospital near the common model while it trains: for very different cells."

    proximal_mu: float = Field(
        default=0.01, gt=0, le=10, title="Pull", description="How strongly training is pulled to the received model."
    )

    def asked(self, recipe: Recipe) -> Recipe:
        """Ask the nodes for the proximal term."""
        return recipe.model_copy(update={"proximal_mu": self.proximal_mu})


class FedAvgMParameters(Parameters):
    """`fedopt.FedAvgM`."""

    name = StrategyName.FEDAVGM
    title = "FedAvg with momentum"
    sentence = "Averages, and keeps going where the last rounds went: fewer rounds where they agree."

    server_learning_rate: float = Field(
        default=1.0, gt=0, le=10, title="Server learning rate", description="Share of the averaged change that is made."
    )
    momentum: float = Field(
        default=0.3, ge=0, lt=1, title="Momentum", description="Share of the last round's step that is made again."
    )


class AdaptiveParameters(Parameters):
    """What FedAdam and FedYogi have in common; see `fedopt.Adaptive`."""

    server_learning_rate: float = Field(
        default=0.05, gt=0, le=10, title="Server learning rate", description="About the size of a value's step a round."
    )
    beta_1: float = Field(
        default=0.5, ge=0, lt=1, title="Beta 1", description="How much of the mean change of earlier rounds is kept."
    )
    beta_2: float = Field(
        default=0.99, ge=0, lt=1, title="Beta 2", description="How much of their mean square is kept."
    )
    tau: float = Field(
        default=1e-3, gt=0, le=1, title="Tau", description="Values that change less than this are not sped up."
    )


class FedAdamParameters(AdaptiveParameters):
    """`fedopt.Adaptive` with Adam's second moment."""

    name = StrategyName.FEDADAM
    title = "FedAdam"
    sentence = (
        "Gives every value of the model its own step size at the centre: it takes a few rounds more than averaging."
    )


class FedYogiParameters(AdaptiveParameters):
    """`fedopt.Adaptive` with Yogi's second moment."""

    name = StrategyName.FEDYOGI
    title = "FedYogi"
    sentence = "Like FedAdam, with step sizes that change more slowly from round to round."

    server_learning_rate: float = Field(
        default=0.03, gt=0, le=10, title="Server learning rate", description="About the size of a value's step a round."
    )


class TrimmedMeanParameters(Parameters):
    """`trimmed_mean.TrimmedMean`."""

    name = StrategyName.TRIMMED_MEAN
    title = "Trimmed mean"
    sentence = (
        "Leaves out the most extreme hospitals value by value: one that sends nonsense does little harm, one that is"
        " merely different has less say."
    )
    streams = False
    compares = True

    trim_share: float = Field(
        default=0.2,
        gt=0,
        lt=0.5,
        title="Trimmed share",
        description="Share of the hospitals left out at each end; always one at least.",
    )

    @property
    def least_sites(self) -> int:
        """One is left when one is trimmed at each end."""
        return 3


class MultiKrumParameters(Parameters):
    """`multikrum.MultiKrum`."""

    name = StrategyName.MULTIKRUM
    title = "Multi-Krum"
    sentence = (
        "Leaves out the hospitals whose updates are farthest from the others', whole: against bad sites, and at the"
        " price of an honest one whose cells look different."
    )
    streams = False
    compares = True

    byzantine_sites: int = Field(
        default=1, ge=1, le=100, title="Bad hospitals", description="So many may be bad; as many are left out."
    )

    @property
    def least_sites(self) -> int:
        """Blanchard et al. 2017: f bad ones among n need n ≥ 2f + 3."""
        return 2 * self.byzantine_sites + 3


OFFERED: Final[Mapping[StrategyName, type[Parameters]]] = {
    kind.name: kind
    for kind in (
        FedAvgParameters,
        FedProxParameters,
        FedAvgMParameters,
        FedAdamParameters,
        FedYogiParameters,
        TrimmedMeanParameters,
        MultiKrumParameters,
    )
}
"""In the order in which they are offered; the first is the default."""


def parse(name: str, given: Mapping[str, Any]) -> Parameters:  # Any: from a form, a command line or the database
    """Return the chosen strategy.

    Raises:
        UsageError: there is no such strategy, it lacks a given parameter, or a value is out of bounds.
    """
    if name not in OFFERED:
        raise UsageError(f"There is no strategy of this name; choose one of {', '.join(OFFERED)}.")
    kind = OFFERED[StrategyName(name)]
    if unknown := sorted(set(given) - set(kind.model_fields)):
        raise UsageError(f"{kind.title} has no parameter {', '.join(unknown)}; it has {', '.join(kind.fields())}.")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        problems = [f"{kind.model_fields[str(one['loc'][0])].title}: {one['msg']}" for one in error.errors()]
        raise UsageError(f"{kind.title} cannot run with these parameters. {'; '.join(problems)}.") from error
