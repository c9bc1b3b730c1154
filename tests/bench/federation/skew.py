"""Three hospitals with skewed labels against all cells in one place: after 10 and 20 rounds, over seeds."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tests.bench.federation.arm import Arm, Sites
from tests.bench.federation.arms import Played, played, seconds
from tests.bench.federation.chart import Axis, lines_svg
from tests.bench.federation.figures import over_seeds
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section
from tests.bench.model.steps import Json

HOSPITALS: Final = 3
ALPHA: Final = 0.5
ROUND_EPOCHS: Final = 2
"""Local epochs a round: few and many rounds, so that the hospitals stay together; see the section on defaults."""
CELLS: Final = 2522
"""PBC's training cells."""
_GOALS: Final = {10: 3.0, 20: 1.5}
_POOLED: Final = 0.97
_ONCE_ROUNDS: Final = 10
"""As many epochs as so many rounds have are also trained in one go."""
_ONCE_SEEDS: Final = 3
"""How many seeds of these: they tell what rounds cost by themselves, beside the goals."""


def seeds(*, quick: bool) -> tuple[int, ...]:
    """Return the seeds: of who gets which cells, and of training."""
    return (0, 1) if quick else (0, 1, 2, 3, 4)


def looks(*, quick: bool) -> tuple[int, ...]:
    """Return after which rounds the model is judged."""
    return (1, 3, 5, 10) if quick else (1, 3, 5, 10, 15, 20)


def recipe(seed: int) -> tuple[tuple[str, int], ...]:
    """Return what a run of a seed chooses over a launch's defaults."""
    return (("local_epochs", ROUND_EPOCHS), ("seed", seed))


def federated(seed: int, *, quick: bool) -> Arm:
    """Return the default run of a seed."""
    sites = Sites(count=HOSPITALS, alpha=ALPHA, seed=seed)
    return Arm(sites, looks(quick=quick), recipe=recipe(seed))


def pooled(seed: int, *, quick: bool) -> Arm:
    """Return the very same run of one hospital that has all cells."""
    return Arm(Sites(pooled=True), looks(quick=quick), recipe=recipe(seed))


def at_once(seed: int) -> Arm:
    """Return all cells trained in one go, for as many epochs as `_ONCE_ROUNDS` rounds have."""
    epochs = _ONCE_ROUNDS * ROUND_EPOCHS
    return Arm(Sites(pooled=True), (1,), recipe=(("local_epochs", epochs), ("seed", seed)))


def numbers(*, quick: bool) -> list[int]:
    """Return the rounds that have a goal."""
    return [number for number in _GOALS if number in looks(quick=quick)]


def arms(*, quick: bool) -> list[Arm]:
    """Return all trainings of the section."""
    rounds = [arm for seed in seeds(quick=quick) for arm in (federated(seed, quick=quick), pooled(seed, quick=quick))]
    return [*rounds, *(at_once(seed) for seed in _once(quick=quick))]


def _once(*, quick: bool) -> tuple[int, ...]:
    return seeds(quick=quick)[:_ONCE_SEEDS]


def measure(bench: Bench) -> Measured:
    """Play them and compare."""
    found = dict(zip(arms(quick=bench.quick), played(bench, arms(quick=bench.quick)), strict=True))
    rows = [one for number in numbers(quick=bench.quick) for one in _rows(bench, found, number)]
    return Measured([*rows, *_once_rows(bench, found)], plots={"federation-skew": _chart(bench, found)})


def _rows(bench: Bench, found: dict[Arm, Played], number: int) -> list[Row]:
    apart, together = _scores(bench, found, number)
    return [
        over_seeds(f"pooled, {number} rounds: macro-F1", together, goal=_POOLED),
        over_seeds(f"federated, {number} rounds: macro-F1", apart),
        over_seeds(
            f"federated below pooled, {number} rounds, points of macro-F1",
            _points(together, apart),
            goal=_GOALS[number],
            at_most=True,
        ),
    ]


def _once_rows(bench: Bench, found: dict[Arm, Played]) -> list[Row]:
    once = [found[at_once(seed)].f1() for seed in _once(quick=bench.quick)]
    apart, _ = _scores(bench, found, _ONCE_ROUNDS)
    return [
        over_seeds(f"pooled, {_ONCE_ROUNDS * ROUND_EPOCHS} epochs in one go: macro-F1", once, goal=_POOLED),
        over_seeds(
            f"federated, {_ONCE_ROUNDS} rounds, below pooled in one go, points of macro-F1",
            _points(once, apart[: len(once)]),
            goal=_GOALS[_ONCE_ROUNDS],
            at_most=True,
        ),
    ]


def _scores(bench: Bench, found: dict[Arm, Played], number: int) -> tuple[list[float], list[float]]:
    """Return the macro-F1 of three hospitals and of one with all cells, after a round, seed by seed."""
    quick, place = bench.quick, looks(quick=bench.quick).index(number)
    return (
        [found[federated(seed, quick=quick)].f1(look=place) for seed in seeds(quick=quick)],
        [found[pooled(seed, quick=quick)].f1(look=place) for seed in seeds(quick=quick)],
    )


def _points(more: Sequence[float], less: Sequence[float]) -> list[float]:
    return [100.0 * (one - other) for one, other in zip(more, less, strict=True)]


def _chart(bench: Bench, found: dict[Arm, Played]) -> str:
    used, rounds = seeds(quick=bench.quick), looks(quick=bench.quick)
    runs = [found[federated(seed, quick=bench.quick)] for seed in used]
    alike = [found[pooled(seed, quick=bench.quick)] for seed in used]
    series = {
        name: [(float(number), _mean([run.f1(look=place) for run in some])) for place, number in enumerate(rounds)]
        for name, some in (("three hospitals", runs), ("one hospital with all cells", alike))
    }
    low = min(value for points in series.values() for _, value in points)
    across, up = Axis("rounds", 0, max(rounds)), Axis("macro-F1 on test groups", int(low * 20) / 20, 1.0)
    return lines_svg(series, "Three skewed hospitals", across=across, up=up, name="federation-skew")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _facts(bench: Bench) -> Json:
    return [arm.facts(None) for arm in arms(quick=bench.quick)]


SECTION: Final = Section(
    name="skew",
    title="Apart against together",
    measure=measure,
    version=2,
    seconds=(seconds(arms(quick=True), CELLS), seconds(arms(quick=False), CELLS)),
    also=_facts,
    method=(
        "PBC's training cells shared out between three hospitals, each class by a Dirichlet distribution (0.5), groups "
        "whole; judged on PBC's 718 test cells. Recipe and strategy are a launch's defaults but for two "
        "local epochs a round. Pooled: one hospital with all cells, by the very same recipe, round by round; and, for "
        "the first three seeds, as many epochs as ten rounds have in one go. Intervals are over seeds, of who has "
        "which cells and of training alike (Student's t)."
    ),
)
