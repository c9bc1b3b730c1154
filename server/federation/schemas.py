"""Runs as pages and commands see them."""

from datetime import datetime

from pydantic import BaseModel, Field

from server.federation.privacy import RunPrivacy
from server.federation.recipe import Value
from server.federation.states import RunState, SiteState
from server.federation.strategies.registry import StrategyName
from server.insights.schemas import Unlike
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census, Recipe, SiteMetrics


class RunPlan(BaseModel):
    """What a coordinator chooses before launch."""

    rounds: int = Field(default=3, ge=1, le=100)
    local_epochs: int | None = Field(default=None, ge=1, le=50)
    recipe: dict[str, Value] = Field(default_factory=dict)
    """What was chosen of the recipe, by the contract's names; see `server.federation.recipe`."""
    min_sites: int = Field(default=2, ge=1)
    sites: list[str] | None = Field(default=None, min_length=1)
    """Ids of the hospitals that are asked; None: every one with an approved training node, whenever a round begins."""
    round_deadline_seconds: int = Field(default=600, ge=30, le=86400)
    classes: list[CellClass] | None = None
    """None: every class that the censuses of those asked hold at least 20 training cells of."""
    strategy: StrategyName = StrategyName.FEDAVG
    strategy_parameters: dict[str, float | str] = Field(default_factory=dict)
    """The strategy's own; what is left out is as its `Parameters` say. Checked at launch, in words."""
    privacy: RunPrivacy = RunPrivacy()

    def as_told(self, hospital_id: str | None) -> "RunPlan":
        """Return the plan as a hospital's own staff see it: who else was chosen is left out."""
        if hospital_id is None or self.sites is None:
            return self
        return self.model_copy(update={"sites": [site for site in self.sites if site == hospital_id]})


class StrategyParameterView(BaseModel):
    """One parameter of a strategy, as a form offers it."""

    name: str
    title: str
    description: str
    default: float
    whole: bool
    """Whether it counts something."""


class StrategyView(BaseModel):
    """A strategy as it is offered before launch."""

    name: StrategyName
    title: str
    sentence: str
    least_sites: int
    """With the parameters' defaults."""
    parameters: list[StrategyParameterView]


class SiteRoundView(BaseModel):
    """One hospital in one round."""

    hospital_id: str
    hospital_name: str
    state: SiteState
    reason: str | None
    examples: int | None
    feedback_cells: int | None
    train_loss: float | None
    loss: float | None
    accuracy: float | None
    macro_f1: float | None
    n: int | None
    seconds: float | None
    bytes_up: int
    bytes_down: int
    epsilon: float | None = None
    """What its part in the run has spent with this round."""


class RoundView(BaseModel):
    """One round."""

    round: int
    started_at: datetime
    ended_at: datetime | None
    sampled: int
    replied: int
    bytes_up: int
    bytes_down: int
    seconds: float | None
    loss: float | None
    accuracy: float | None
    whole: bool = False
    """Whether it left a model: one that ended without enough hospitals counts for nothing."""
    epsilon: float | None = None
    """What noise at the centre has spent of every hospital with this round."""
    sites: list[SiteRoundView]


class EventView(BaseModel):
    """A line of the log book; `id` orders and resumes a live stream."""

    id: int
    at: datetime
    kind: str
    text: str


class RunSummary(BaseModel):
    """A line of the rounds page."""

    id: str
    state: RunState
    rounds: int
    rounds_done: int
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    accuracy: float | None
    model_version: str | None
    problem: str | None
    stop_requested: bool = False
    pause_requested: bool = False


class LastRound(BaseModel):
    """What the last round came to: its model on the validation cells on which each round's received model was judged.

    ``loss`` and ``accuracy`` are means over all sites, weighted by these cells.
    """

    loss: float | None
    accuracy: float | None
    sites: dict[str, SiteMetrics]
    """By hospital id; a hospital's own staff see their own."""


class RunView(RunSummary):
    """A run, whole. `per_site` is the candidate on each site's held-out groups, once evaluated."""

    started_at: datetime | None
    strategy: str
    strategy_title: str
    strategy_parameters: dict[str, float]
    """By their titles."""
    privacy: RunPrivacy
    epsilon: float | None
    """What noise at the centre has spent of every hospital so far; noise at the hospitals: see `SiteRoundView`."""
    min_sites: int
    asked: dict[str, str] | None
    """Hospital id → name of those that were chosen; a hospital's own staff see their own at most. None: all."""
    classes: list[CellClass]
    local_epochs: int
    recipe: Recipe
    flower_run_id: str | None
    round_views: list[RoundView]
    events: list[EventView]
    per_site: dict[str, SiteMetrics]
    after: LastRound | None
    """None: not evaluated yet."""


class SiteCensus(BaseModel):
    """What one hospital could train on, for the page before launch."""

    hospital_id: str
    hospital_name: str
    at: datetime
    census: Census
    online: bool


class SiteDrift(BaseModel):
    """How far one hospital lies from the others, before launch."""

    hospital_id: str
    hospital_name: str
    mix: float | None
    """Total variation distance, 0 to 1, of its shares of classes from those of all others together, in cells to train
    on; None: there is nobody to compare with."""
    recent: list[Unlike]
    """Its recent cells unlike the training, a stain each; empty: no case came in."""
