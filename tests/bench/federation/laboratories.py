"""Two real laboratories: the global model against the best each could train alone, with and without its adapter."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.bench.federation.arm import FOLDS, Arm, Sites
from tests.bench.federation.arms import Played, played, seconds
from tests.bench.federation.figures import paired
from tests.bench.federation.skew import ROUND_EPOCHS, recipe
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section
from tests.bench.model.steps import Json

ROUNDS: Final = 10
LABS: Final = ("pbc", "bccd")
_ALONE_EPOCHS: Final = (0.5, 1.0)
"""How long a laboratory trains alone, against all of the run's epochs: its validation groups choose."""
_CELLS: Final = 2522 + 170
_POINTS: Final = -3.0


def _folds(*, quick: bool) -> tuple[int | None, ...]:
    return (None,) if quick else tuple(range(FOLDS))


def together(fold: int | None) -> Arm:
    """Return the federated run of both laboratories."""
    return Arm(Sites(labs=LABS, fold=fold), (ROUNDS,), recipe=recipe(fold or 0), adapted=True)


def alone(lab: str, fold: int | None) -> list[Arm]:
    """Return what a laboratory could train by itself; only BCCD is cut into folds."""
    fold = fold if lab == "bccd" else None
    return [
        Arm(
            Sites(labs=(lab,), fold=fold, pooled=True),
            (1,),
            recipe=(("local_epochs", min(50, max(1, round(ROUNDS * ROUND_EPOCHS * share)))), ("seed", fold or 0)),
        )
        for share in _ALONE_EPOCHS
    ]


def arms(*, quick: bool) -> list[Arm]:
    """Return all trainings of the section."""
    return [
        arm for fold in _folds(quick=quick) for arm in (together(fold), *(a for lab in LABS for a in alone(lab, fold)))
    ]


def measure(bench: Bench) -> Measured:
    """Play them; BCCD is judged fold by fold, so that each of its cells is judged once."""
    wanted = arms(quick=bench.quick)
    found = dict(zip(wanted, played(bench, wanted), strict=True))
    rows: list[Row] = []
    notes = []
    for lab in LABS:
        judged = [_judged(found, lab, fold) for fold in _folds(quick=bench.quick)]
        gathered = _mean if lab == "pbc" else np.concatenate
        best, shared, own = (gathered([one[place] for one in judged]) for place in range(3))
        name = lab.upper()
        rows += paired(f"{name}: global model against the best local one", shared, best, goal=_POINTS)
        adapted = f"{name}: global model with the site's adapter against the best local one"
        rows += paired(adapted, own, best, middle=0.0)
        rows += paired(f"{name}: the adapter's gain", own, shared)
        kept = sum(found[together(fold)].own(lab)[1] for fold in _folds(quick=bench.quick))
        notes.append(
            f"{name}: right alone {best.mean():.3f}, together {shared.mean():.3f}, with its adapter {own.mean():.3f} "
            f"of {len(best)} cells; its own head was kept in {kept} of {len(judged)} runs."
        )
    return Measured(rows, notes)


def _judged(found: dict[Arm, Played], lab: str, fold: int | None) -> tuple[NDArray[np.float64], ...]:
    """Return how often each test cell is right by (the best local model, the global one, the global one adapted)."""
    best = max((found[arm] for arm in alone(lab, fold)), key=lambda one: _accuracy(*one.pair(lab, "val")))
    truth, said = best.pair(lab)
    run = found[together(fold)]
    return (
        np.asarray(truth == said, np.float64),
        np.asarray(truth == run.pair(lab)[1], np.float64),
        np.asarray(truth == run.own(lab)[0], np.float64),
    )


def _accuracy(truth: NDArray[np.int64], said: NDArray[np.int64]) -> float:
    return float((truth == said).mean())


def _mean(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """PBC's test cells are the same in every fold: how often each is right."""
    return np.asarray(np.mean(parts, axis=0), np.float64)


def _facts(bench: Bench) -> Json:
    return [arm.facts(None) for arm in arms(quick=bench.quick)]


SECTION: Final = Section(
    name="laboratories",
    title="Two laboratories",
    measure=measure,
    version=1,
    seconds=(seconds(arms(quick=True), _CELLS), seconds(arms(quick=False), _CELLS)),
    also=_facts,
    method=(
        "PBC and BCCD as hospitals of their own; BCCD by five grouped folds (one judged, one validates, three train), "
        "so that each of its cells is judged once; PBC's test cells are judged in each of these runs, and count by how "
        "often they are right. Alone: the same recipe with half and all of the run's epochs, the better one by its "
        "validation groups; PBC once, BCCD in each fold. The adapter is the site's own head "
        "(`shared/vision/site_head.py`), fitted on its training cells and kept where its validation cells are read "
        "clearly better. Differences are of accuracy on the same cells."
    ),
)
