"""What to expect of a run before it is launched: who would take part, and how long a round would be."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from statistics import median
from typing import Final

from pydantic import BaseModel, Field

from server.federation.privacy import Measure
from server.federation.schemas import RunPlan
from server.models.federation import RoundRecord, Run, SiteRound
from shared.contracts.training import Recipe

_LAST: Final = 5
"""So many of a hospital's rounds, and of the network's, are looked at."""
_A_STEPS_WORK: Final = ("backbone", "input_size", "frozen_stages")
"""Fields of a recipe by which a step takes several times as long or as short."""
Past = tuple[SiteRound, RoundRecord, Run]


class SiteAnswer(BaseModel):
    """What a hospital's node said, or why it said nothing usable."""

    takes_part: bool
    reason: str = ""
    examples: int | None = None


class SiteForecast(BaseModel):
    """A hospital's line before launch."""

    hospital_id: str
    hospital_name: str
    online: bool
    """Its node has told that it lives within the last seconds."""
    last_seen_at: datetime | None
    takes_part: bool | None
    """None: its node has not answered."""
    reason: str
    examples: int | None
    """Cells it would train on, where its policy lets them be counted."""
    round_seconds: float | None
    """By its own last rounds that were like these, see `pace`; None: it has none."""


class DryRunView(BaseModel):
    """A dry run, whole."""

    id: str
    created_at: datetime
    created_by: str
    plan: RunPlan
    ended: bool
    problem: str | None
    sites: list[SiteForecast]
    round_seconds: float | None = None
    """The slowest hospital that would take part, and what a round takes beyond it; None: not known."""
    total_seconds: float | None = None

    @property
    def willing(self) -> int:
        """How many hospitals would take part."""
        return sum(bool(site.takes_part) for site in self.sites)

    @property
    def enough(self) -> bool:
        """Whether they are as many as the plan needs."""
        return self.willing >= self.plan.min_sites


class Pace(BaseModel):
    """How fast hospitals were."""

    seconds_per_example: dict[str, float] = Field(default_factory=dict)
    """Hospital id → seconds for one pass over one cell, median over its last rounds."""
    overhead: float | None = None
    """Seconds of a round beyond its slowest hospital, median over the last rounds."""

    def round_of(self, hospital_id: str, examples: int | None, epochs: int) -> float | None:
        """Return the predicted seconds of one hospital's round."""
        rate = self.seconds_per_example.get(hospital_id)
        return rate * examples * epochs if rate is not None and examples is not None else None

    def whole_round(self, sites: Iterable[SiteForecast]) -> float | None:
        """Return the predicted seconds of a round with the hospitals that would take part; None: not known."""
        seconds = [site.round_seconds for site in sites if site.takes_part]
        known = [value for value in seconds if value is not None]
        if not seconds or len(known) < len(seconds) or self.overhead is None:
            return None
        return max(known) + self.overhead


def pace(past: Iterable[Past], recipe: Recipe, measure: Measure) -> Pace:
    """Return how fast hospitals were in ``past`` (newest first) in rounds whose step was the same work.

    That is: of the same backbone at the same size with as many stages frozen, and alike in noise at the hospitals.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    slowest: dict[tuple[str, int], float] = {}
    lengths: dict[tuple[str, int], float] = {}
    for site, whole, run in past:
        then = Recipe.model_validate(run.recipe)
        noised = run.privacy.get("measure") == Measure.DP_SGD
        if site.seconds is None or not site.examples or noised is not (measure is Measure.DP_SGD):
            continue
        if any(getattr(then, name) != getattr(recipe, name) for name in _A_STEPS_WORK):
            continue
        if len(rates[site.hospital_id]) < _LAST:
            rates[site.hospital_id].append(site.seconds / (site.examples * then.local_epochs))
        place = (run.id, whole.round)
        if whole.seconds is not None:
            lengths[place] = whole.seconds
            slowest[place] = max(slowest.get(place, 0.0), site.seconds)
    beyond = [max(0.0, length - slowest[place]) for place, length in list(lengths.items())[:_LAST]]
    return Pace(
        seconds_per_example={hospital: median(values) for hospital, values in rates.items()},
        overhead=median(beyond) if beyond else None,
    )


def held(answer: SiteAnswer | None, census: Mapping[str, int], hospital_id: str) -> int | None:
    """Return on how many cells a hospital would train: as its node said, else as its census counts them."""
    if answer is not None and answer.examples is not None:
        return answer.examples
    return census.get(hospital_id)
