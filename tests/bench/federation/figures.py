"""Rows of this bench: points (hundredths) over seeds, and differences on the same cells."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from tests.bench.model.rows import Row, figure, row

Hits = NDArray[np.float64]
_CONFIDENCE = 0.95


def over_seeds(measure: str, values: Sequence[float], *, goal: float | None = None, at_most: bool = False) -> Row:
    """Return a mean over seeds with its 95 % interval by Student's t; ``n``: how many seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return row(measure, mean, None, None, len(values), goal=goal, at_most=at_most)
    error = float(np.std(values, ddof=1) / len(values) ** 0.5)
    reach = error * float(t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1))
    return row(measure, mean, mean - reach, mean + reach, len(values), goal=goal, at_most=at_most)


def paired(
    measure: str, ours: Hits, theirs: Hits, *, goal: float | None = None, middle: float | None = None
) -> list[Row]:
    """Return how many points more of N cells are right by ours than by theirs, and the interval's lower bound.

    Each is how often a cell was right, over seeds or folds (0 to 1). The interval is by bootstrap over cells; ``goal``
    is the lower bound's, ``middle`` that of the difference itself.
    """
    difference = 100.0 * (ours - theirs)
    whole = figure(f"{measure}, points", lambda some: float(difference[some].mean()), len(difference), goal=middle)
    if goal is None:
        return [whole]
    return [whole, row(f"{measure}, points, lower bound", float(whole["low"] or 0.0), None, None, len(ours), goal=goal)]
