"""Exact binomial intervals, the white-cell differential, and the agreement of two readings.

Pure functions of counts. Source of the interval: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413; for
white-cell counts it is known as the Rümke limits. Kappa: J. Cohen, Educ. Psychol. Meas. 20 (1960) 37-46; its variance:
J. L. Fleiss, J. Cohen, B. S. Everitt, Psychol. Bull. 72 (1969) 323-327.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from math import sqrt
from typing import Final, TypeVar

from scipy.special import betaincinv, ndtri

from shared.contracts.agreement import Agreement
from shared.contracts.analysis import ClassShare, Differential
from shared.contracts.ontology import CellClass

Label = TypeVar("Label", bound=Hashable)
_Z: Final = float(ndtri(0.975))


def clopper_pearson(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a share, in percent.

    Args:
        count: cells of the class, 0 … ``total``.
        total: cells counted; 0 knows nothing and gives (0, 100).
        confidence: coverage, between 0 and 1.

    Returns:
        (low, high) in percent, unrounded.

    Raises:
        ValueError: counts or confidence out of range.
    """
    if not 0 <= count <= total:
        raise ValueError(f"count {count} is not within 0 and total {total}")
    if not 0 < confidence < 1:
        raise ValueError("confidence must lie between 0 and 1")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return 100 * low, 100 * high


def share(count: int, total: int) -> ClassShare:
    """Return ``count`` of ``total`` as a share with its exact 95 % interval (``percent`` is 0 where total is 0)."""
    low, high = clopper_pearson(count, total)
    return ClassShare(count=count, percent=100 * count / total if total else 0.0, low=low, high=high)


def denominator(classes: Iterable[CellClass]) -> int:
    """Return how many of ``classes`` stand in the white-cell denominator."""
    return sum(cls.info.counts for cls in classes)


def differential(classes: Iterable[CellClass]) -> Differential:
    """Return the differential of a smear's cells: every class that counts and occurs, in reporting order.

    The denominator holds the white cells only. Nucleated red cells, smudge cells, platelets and artefacts are never
    in it and have no line here: `per_100_white_cells` reports them.
    """
    counts = Counter(classes)
    total = denominator(counts.elements())
    return {cls: share(counts[cls], total) for cls in CellClass if cls.info.counts and counts[cls]}


def per_100_white_cells(cls: CellClass, classes: Iterable[CellClass]) -> float | None:
    """Return how many cells of ``cls`` (nRBC, smudge cells) there are per 100 white cells; None without white cells."""
    counts = Counter(classes)
    total = denominator(counts.elements())
    return 100 * counts[cls] / total if total else None


def agreement(pairs: Iterable[tuple[Label, Label]]) -> Agreement:
    """Return how far two readers agree, from the pair of names that each cell has; see `agreement_of_counts`."""
    return agreement_of_counts(Counter(pairs))


def agreement_of_counts(counts: Mapping[tuple[Label, Label], int]) -> Agreement:
    """Return Cohen's kappa of a table of (one's class, the other's class) → cells, with its 95 % interval.

    The interval is the large-sample one (Fleiss, Cohen and Everitt 1969), cut at −1 and 1. It takes cells for
    independent, which those of one smear are not quite. Where all cells agree it shrinks to 1. Where a reader uses one
    class only, kappa is 0 whatever the other says (or 0/0): it has no meaning and is None.
    """
    total = sum(counts.values())
    agreed = sum(count for (one, other), count in counts.items() if one == other)
    rows, columns = Counter[Label](), Counter[Label]()
    for (one, other), count in counts.items():
        rows[one] += count
        columns[other] += count
    if min(len(+rows), len(+columns)) < 2:
        return Agreement(cells=total, agreed=agreed, kappa=None)
    chance = sum(rows[label] * columns[label] for label in rows) / total**2
    observed = agreed / total
    kappa = (observed - chance) / (1 - chance)
    squares = 0.0
    for (one, other), count in counts.items():
        if not count:
            continue
        marginal = (columns[one] + rows[other]) / total
        value = float(one == other) * (1 - chance) - marginal * (1 - observed)
        squares += count / total * value**2
    spread = squares - (observed * chance - 2 * chance + observed) ** 2
    error = sqrt(max(0.0, spread) / total) / (1 - chance) ** 2
    return Agreement(
        cells=total,
        agreed=agreed,
        kappa=kappa,
        low=max(-1.0, kappa - _Z * error),
        high=min(1.0, kappa + _Z * error),
    )
