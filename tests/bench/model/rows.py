"""Lines of results.json, and the figures in them: shares with exact intervals, the rest by bootstrap over cells."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.evaluation.svg import Measure
from shared.statistics import clopper_pearson

Row = dict[str, str | float | int | bool | None]
Labels = NDArray[np.int64]
Hits = NDArray[np.bool_]
Places = NDArray[np.int64]
Scores = NDArray[np.float64]

DRAWS: Final = 1000
_LIMITS: Final = (0.025, 0.975)
_NUMBERS: Final = ("value", "low", "high", "goal")


def share(measure: str, hits: Hits, *, goal: float | None = None) -> Row:
    """Return a share as a row, with its exact interval."""
    count, total = int(hits.sum()), len(hits)
    low, high = clopper_pearson(count, total) if total else (0.0, 100.0)
    return row(measure, count / total if total else 0.0, low / 100, high / 100, total, goal=goal)


def row(
    measure: str, value: float, low: float | None, high: float | None, n: int, *, goal: float | None,
    at_most: bool = False,
) -> Row:  # fmt: skip
    """Return one line of results.json; without a goal ``holds`` is None."""
    holds = None if goal is None else bool(value <= goal if at_most else value >= goal)
    return {"measure": measure, "value": value, "low": low, "high": high, "n": n, "goal": goal, "holds": holds}


def measure_of(row: Row, name: str | None = None) -> Measure:
    """Return a row as a line of a chart."""
    value, low, high, goal = (None if row[key] is None else float(row[key] or 0) for key in _NUMBERS)
    return Measure(name or str(row["measure"]), value or 0.0, low, high, goal)


def figure(
    measure: str, of: Callable[[Places], float], count: int, *, goal: float | None = None, at_most: bool = False
) -> Row:
    """Return ``of`` (places of cells → figure) on all ``count`` cells as a row, with its bootstrap interval."""
    low, high = interval(of, count)
    return row(measure, of(np.arange(count)), low, high, count, goal=goal, at_most=at_most)


def interval(of: Callable[[Places], float], count: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a figure over `DRAWS` draws of ``count`` cells, with replacement."""
    random = np.random.default_rng(0)
    values = [of(random.integers(0, count, count)) for _ in range(DRAWS)]
    low, high = np.quantile(values, _LIMITS)
    return float(low), float(high)


def area_row(measure: str, inside: Scores, outside: Scores, *, goal: float | None = None) -> Row:
    """Return the area under the ROC curve as a row; both sides are drawn anew for its interval."""
    random = np.random.default_rng(0)
    draws = [area(random.choice(inside, len(inside)), random.choice(outside, len(outside))) for _ in range(DRAWS)]
    low, high = np.quantile(draws, _LIMITS)
    return row(measure, area(inside, outside), float(low), float(high), len(inside) + len(outside), goal=goal)


def area(inside: Scores, outside: Scores) -> float:
    """Return the area under the ROC curve: how often an outside score lies above an inside one, ties half."""
    order = np.sort(inside)
    below, upto = np.searchsorted(order, outside, "left"), np.searchsorted(order, outside, "right")
    return float((below + upto).mean() / (2 * len(inside)))


def macro_f1(truth: Labels, said: Labels) -> float:
    """Return the mean F1 over the class positions that occur."""
    count = int(max(truth.max(), said.max())) + 1
    hits = np.bincount(truth[truth == said], minlength=count)
    both = np.bincount(truth, minlength=count) + np.bincount(said, minlength=count)
    return float((2 * hits[both > 0] / both[both > 0]).mean())


def mean_recall(truth: Labels, said: Labels) -> float:
    """Return the mean recall over the class positions that occur as truth: balanced accuracy."""
    count = int(max(truth.max(), said.max())) + 1
    hits, there = np.bincount(truth[truth == said], minlength=count), np.bincount(truth, minlength=count)
    return float((hits[there > 0] / there[there > 0]).mean())
