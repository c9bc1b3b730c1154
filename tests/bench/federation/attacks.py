"""One bad hospital of five: what each strategy makes of it, against the four honest ones."""

from typing import Final

from server.federation.recipe import SMALL
from server.federation.strategies.registry import OFFERED, StrategyName
from tests.bench.federation.arm import Arm, Attack, Sites
from tests.bench.federation.arms import played, seconds
from tests.bench.federation.figures import over_seeds
from tests.bench.federation.skew import CELLS, recipe
from tests.bench.model.bench import Bench
from tests.bench.model.section import Measured, Section
from tests.bench.model.steps import Json

_HOSPITALS: Final = 5
_ALPHA: Final = 1.0
_GOAL: Final = 3.0
_ROBUST: Final = (StrategyName.TRIMMED_MEAN, StrategyName.MULTIKRUM)


def _seeds(*, quick: bool) -> tuple[int, ...]:
    return (0,) if quick else (0, 1)


def _rounds(*, quick: bool) -> int:
    return 5 if quick else 10


def honest(seed: int, *, quick: bool) -> Arm:
    """Return the run of the four honest hospitals."""
    sites = Sites(count=_HOSPITALS, alpha=_ALPHA, seed=seed, honest=_HOSPITALS - 1)
    return Arm(sites, (_rounds(quick=quick),), (*recipe(seed), *SMALL.items()))


def attacked(seed: int, attack: Attack | None, strategy: StrategyName, *, quick: bool) -> Arm:
    """Return a run of all five."""
    sites = Sites(count=_HOSPITALS, alpha=_ALPHA, seed=seed)
    return Arm(sites, (_rounds(quick=quick),), (*recipe(seed), *SMALL.items()), strategy=strategy, attack=attack)


def arms(*, quick: bool) -> list[Arm]:
    """Return all trainings of the section."""
    used = _seeds(quick=quick)
    return [honest(seed, quick=quick) for seed in used] + [
        attacked(seed, attack, one, quick=quick) for seed in used for attack, one in _pairs(quick=quick)
    ]


def _pairs(*, quick: bool) -> list[tuple[Attack | None, StrategyName]]:
    """Return what the fifth hospital sends (None: an honest update), and the strategy that it meets."""
    robust: list[tuple[Attack | None, StrategyName]] = [(attack, one) for attack in Attack for one in _ROBUST]
    if quick:
        return robust
    average = [(attack, StrategyName.FEDAVG) for attack in Attack]
    return [*average, *robust, *((None, one) for one in _ROBUST)]


def measure(bench: Bench) -> Measured:
    """Play them and compare."""
    wanted, used = arms(quick=bench.quick), _seeds(quick=bench.quick)
    found = dict(zip(wanted, played(bench, wanted), strict=True))
    alone = [found[honest(seed, quick=bench.quick)].f1() for seed in used]
    rows = [over_seeds("four honest hospitals, FedAvg: macro-F1", alone)]
    for attack, name in _pairs(quick=bench.quick):
        values = [found[attacked(seed, attack, name, quick=bench.quick)].f1() for seed in used]
        lost = [100 * (one - other) for one, other in zip(alone, values, strict=True)]
        title = OFFERED[name].title
        words = f"{title}, one of five sends {attack.value} updates" if attack else f"{title}, all five are honest"
        goal = _GOAL if attack and name in _ROBUST else None
        rows.append(over_seeds(f"{words}: points of macro-F1 lost", lost, goal=goal, at_most=True))
    return Measured(rows)


def _facts(bench: Bench) -> Json:
    return [arm.facts(None) for arm in arms(quick=bench.quick)]


SECTION: Final = Section(
    name="attacks",
    title="A bad hospital",
    measure=measure,
    version=1,
    seconds=(seconds(arms(quick=True), CELLS), seconds(arms(quick=False), CELLS)),
    also=_facts,
    method=(
        "PBC shared out between five hospitals (Dirichlet 1.0), trained by the small recipe (docs/recipe.md), ten "
        "rounds, in a quick run five. The fifth trains, and then sends noise or its update "
        "turned round, five times as large: below the ten times at which every strategy refuses an update, so that the "
        "strategies themselves are measured."
    ),
)
