"""One training of the bench, federated or not: all that its result depends on."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

from client_node.training import augment
from server.federation.recipe import make_recipe
from server.federation.strategies.registry import Parameters, StrategyName, parse
from shared.contracts.training import Recipe
from tests.bench.federation.codecs import Codec
from tests.bench.model.stages import CLASSES
from tests.bench.model.steps import Json

_VERSION: Final = 1
"""Raise it when the same arm would be played otherwise."""
FOLDS: Final = 5


class Attack(StrEnum):
    """What the bad hospital sends instead of its update."""

    RANDOM = "random"
    """Noise as large as its update times `STRENGTH`."""
    FLIPPED = "sign-flipped"
    """Its update, turned round, times `STRENGTH`."""


STRENGTH: Final = 5.0
"""Below what the guard of every strategy refuses (ten times the median)."""


@dataclass(frozen=True, slots=True)
class Sites:
    """Who learns: PBC skewed between ``count`` hospitals, or laboratories as they are.

    ``labs``: each is a hospital; with ``pooled`` all cells are one hospital's. ``alpha``: Dirichlet skew of PBC, with
    ``count``. ``fold``: of BCCD, that is judged; None: its test split is. ``honest``: only so many of the hospitals
    take part.
    """

    labs: tuple[str, ...] = ("pbc",)
    count: int = 0
    alpha: float = 0.0
    seed: int = 0
    pooled: bool = False
    fold: int | None = None
    honest: int | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """A training; ``looks`` are the rounds after which it is judged."""

    sites: Sites
    looks: tuple[int, ...]
    recipe: tuple[tuple[str, float | int | str], ...] = ()
    strategy: str = StrategyName.FEDAVG
    parameters: tuple[tuple[str, float], ...] = ()
    codec: Codec = Codec.PACKED
    """As tensors travel; packed is the product's."""
    attack: Attack | None = None
    """Of the last hospital."""
    adapted: bool = field(default=False)
    """Whether each laboratory's own head is fitted at the end, and judged beside the shared one."""

    @property
    def rounds(self) -> int:
        """How many there are."""
        return max(self.looks)

    def chosen_strategy(self) -> Parameters:
        """Return the strategy's parameters."""
        return parse(self.strategy, dict(self.parameters))

    def chosen_recipe(self) -> Recipe:
        """Return what the hospitals are asked: a launch's recipe, with this arm's changes."""
        return self.chosen_strategy().asked(make_recipe(CLASSES, dict(self.recipe)))

    def facts(self, data: Json) -> Json:
        """Return what the result depends on."""
        return {
            "arm": asdict(self), "recipe": self.chosen_recipe().model_dump(mode="json"),
            "strategy": self.chosen_strategy().model_dump(mode="json"), "data": data, "augment": augment.VERSION,
            "version": _VERSION,
        }  # fmt: skip

    def steps(self, cells: int) -> int:
        """Return about how many steps it trains, on ``cells`` training cells in all."""
        recipe = self.chosen_recipe()
        sites = 1 if self.sites.pooled else max(self.sites.count, len(self.sites.labs))
        return self.rounds * recipe.local_epochs * sites * max(36, -(-cells // sites // recipe.batch_size))
