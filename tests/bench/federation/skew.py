"""Three hospitals with skewed labels against all cells in one place: after 10 and 20 rounds, over seeds."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from server.federation.recipe import make_recipe
from tests.bench.federation.arm import Arm, Sites
from tests.bench.federation.arms import Played, played, seconds
from tests.bench.federation.chart import Axis, lines_svg
from tests.bench.federation.figures import over_seeds
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES
from tests.bench.model.steps import Json

HOSPITALS: Final = 3
ALPHA: Final = 0.5
CELLS: Final = 2522
"""PBC's training cells."""
_GOALS: Final = {10: 3.0, 20: 1.5}
_POOLED: Final = 0.97


def local_epochs() -> int:
    """Return how many a launch asks for."""
    return make_recipe(CLASSES, {}).local_epochs


def seeds(*, quick: bool) -> tuple[int, ...]:
    """Return the seeds: of who gets which cells, and of training."""
    return (0, 1) if quick else (0, 1, 2, 3, 4)


def looks(*, quick: bool) -> tuple[int, ...]:
    """Return after which rounds the model is judged."""
    return (1, 3, 5, 10) if quick else (1, 3, 5, 10, 15, 20)


def federated(seed: int, *, quick: bool) -> Arm:
    """Return the default run of a seed."""
    sites = Sites(count=HOSPITALS, alpha=ALPHA, seed=seed)
    return Arm(sites, looks(quick=quick), recipe=(("seed", seed),))


def pooled(seed: int, rounds: int) -> Arm:
    """Return the same recipe on all cells, for as many epochs as ``rounds`` have."""
    epochs = rounds * local_epochs()
    return Arm(Sites(pooled=True), (1,), recipe=(("local_epochs", epochs), ("seed", seed)))


def arms(*, quick: bool) -> list[Arm]:
    """Return all trainings of the section."""
    numbers = [number for number in _GOALS if number in looks(quick=quick)]
    return [
        arm
        for seed in seeds(quick=quick)
        for arm in (federated(seed, quick=quick), *(pooled(seed, number) for number in numbers))
    ]


def measure(bench: Bench) -> Measured:
    """Play them and compare."""
    found = dict(zip(arms(quick=bench.quick), played(bench, arms(quick=bench.quick)), strict=True))
    rows: list[Row] = []
    for number in (one for one in _GOALS if one in looks(quick=bench.quick)):
        rows += _rows(bench, found, number)
    return Measured(rows, plots={"federation-skew": _chart(bench, found)})


def _rows(bench: Bench, found: dict[Arm, Played], number: int) -> list[Row]:
    place = looks(quick=bench.quick).index(number)
    used = seeds(quick=bench.quick)
    together = [found[pooled(seed, number)].f1() for seed in used]
    apart = [found[federated(seed, quick=bench.quick)].f1(look=place) for seed in used]
    epochs = number * local_epochs()
    return [
        over_seeds(f"pooled, {epochs} epochs: macro-F1", together, goal=_POOLED),
        over_seeds(f"federated, {number} rounds: macro-F1", apart),
        over_seeds(
            f"federated below pooled, {number} rounds, points of macro-F1",
            [100 * (one - other) for one, other in zip(together, apart, strict=True)],
            goal=_GOALS[number],
            at_most=True,
        ),
    ]


def _chart(bench: Bench, found: dict[Arm, Played]) -> str:
    used, rounds = seeds(quick=bench.quick), looks(quick=bench.quick)
    runs = [found[federated(seed, quick=bench.quick)] for seed in used]
    series = {
        "federated": [
            (float(number), _mean([run.f1(look=place) for run in runs])) for place, number in enumerate(rounds)
        ],
        "pooled, as many epochs": [
            (float(number), _mean([found[pooled(seed, number)].f1() for seed in used]))
            for number in _GOALS
            if number in rounds
        ],
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
    version=1,
    seconds=(seconds(arms(quick=True), CELLS), seconds(arms(quick=False), CELLS)),
    also=_facts,
    method=(
        "PBC's training cells shared out between three hospitals, each class by a Dirichlet distribution (0.5), groups "
        "whole; judged on PBC's 718 test cells. Recipe and strategy are a launch's defaults. Pooled: the same recipe, "
        "one hospital with all cells, as many epochs in one go. Intervals are over seeds, of who has which cells and "
        "of training alike (Student's t)."
    ),
)
