"""Sets of classes that hold the true one as often as they say, and how far a site's few cells can vouch for that.

Split-conformal prediction (Vovk et al. 2005; the scores of Romano et al. 2020, without randomness). Among n cells that
nothing was fitted on, the k-th smallest score holds a new cell's true class with probability k / (n + 1) at least: n
cells vouch for n / (n + 1) at most, whatever is asked. Beyond that only a set of all classes would be sure, which tells
a reader nothing; what other laboratories found stands in there, and how much is vouched for is said. numpy only.
"""

import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.contracts.training import CalibrationSummary

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEVEL: Final = 0.95
"""Share of cells whose true class the prediction set shall hold, where a site asks for no other."""
LEVELS: Final = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""For these a site tells its quantiles, as far as its cells reach."""
DEFAULT_QUANTILE: Final = 0.9
"""Where nothing is known at all, of `LEVEL`."""
LEAST_HALF: Final = 40
"""Cells that each half needs for a site's cells to be halved."""
_TIMES: Final = 3
"""So many times the cells that vouch for a level the half for the quantile needs: of fewer it is one of the largest
three scores, which chance makes too large, and sets with it."""
_FOLDS: Final = 5


class Quantile(NamedTuple):
    """What a set's classes are cut off by."""

    value: float
    """Sets hold the classes whose likelier classes' probabilities sum up to no more."""
    vouched: float | None
    """Share of cells whose true class such sets hold, as the site's own cells vouch for; None: it has none."""


def likelier(probabilities: Floats) -> Floats:
    """Return for each of N × K classes the summed probability of the classes likelier than it (0 for the likeliest)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    before[:, 0] = 0.0
    result = np.empty_like(before)
    np.put_along_axis(result, order, before, axis=1)
    return result


def scores(probabilities: Floats, labels: Labels) -> Floats:
    """Return the scores of N cells' true classes (probabilities N × K, labels N): what a set's quantile must reach."""
    result: Floats = likelier(probabilities)[np.arange(len(labels)), labels]
    return result


def needed(level: float) -> int:
    """Return how many cells it takes to vouch for ``level``: 19 for 0.95, 99 for 0.99."""
    return math.ceil(level / (1.0 - level) - 1e-9)


def quantile(found: Floats, level: float) -> float:
    """Return the split-conformal quantile of N scores; 1, with which a set holds all classes, for too few."""
    rank = math.ceil((len(found) + 1) * level - 1e-9)
    return float(min(1.0, np.sort(found)[rank - 1])) if rank <= len(found) else 1.0


def fit(found: Floats, level: float, borrowed: float) -> Quantile:
    """Return the quantile by which sets hold a share ``level`` of true classes.

    Args:
        found: scores of N of the site's cells that nothing was fitted on.
        level: the share asked for.
        borrowed: what other laboratories found for it (`borrow`). With fewer than `needed` cells it counts, but never
            so that sets get smaller than the site's own cells ask for.
    """
    count = len(found)
    if count >= needed(level):
        return Quantile(quantile(found, level), level)
    if not count:
        return Quantile(borrowed, None)
    return Quantile(max(borrowed, float(min(1.0, found.max()))), count / (count + 1))


def borrow(told: CalibrationSummary, level: float) -> float:
    """Return the quantile that other laboratories found for ``level``, from what a model's card tells of them.

    That of the next higher level it has; beyond its highest, the tail above the quantile shrinks with the tail above
    the level, which is a guess on the safe side for scores that thin out towards 1.
    """
    known = sorted(told.quantiles) or [(LEVEL, told.conformal_quantile)]
    for at, value in known:
        if at >= level - 1e-9:
            return value
    at, value = known[-1]
    return 1.0 - (1.0 - value) * (1.0 - level) / (1.0 - at)


def told(found: Floats) -> tuple[tuple[float, float], ...]:
    """Return the quantiles of a site's scores for those of `LEVELS` that its cells vouch for: (level, quantile)."""
    return tuple((level, quantile(found, level)) for level in LEVELS if len(found) >= needed(level))


def halves(groups: Sequence[str], level: float) -> Mask | None:
    """Return which of N cells a temperature and a view may be chosen on, the others being kept for the quantile.

    By the hashes of their ``groups``, so that near duplicates stay together. None where the halves would be too small
    for a steady quantile of ``level``: then cross-fit (`folds`), since one temperature hardly follows single cells.
    """
    mask = np.array([sha256(group.encode()).digest()[0] % 2 == 0 for group in groups], bool)
    least = max(LEAST_HALF, _TIMES * needed(level))
    return mask if mask.sum() >= LEAST_HALF and (~mask).sum() >= least else None


def folds(count: int, groups: Sequence[str]) -> Iterator[Mask]:
    """Return masks of ``count`` cells, each cell in one of them: by the hashes of their groups, where these differ."""
    place = np.array([int.from_bytes(sha256(group.encode()).digest()[1:5]) % _FOLDS for group in groups], np.int64)
    if len(np.unique(place)) < 2:
        place = np.arange(count) % _FOLDS
    for number in range(_FOLDS):
        if (place == number).any():
            yield place == number
