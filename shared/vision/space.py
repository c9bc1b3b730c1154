"""Where a model's features of known cells lie, and how far from there another cell's are. numpy only.

A Gaussian in the leading principal components of the features, and the spread of what these leave out (probabilistic
principal components, Tipping & Bishop 1999, with one difference: both parts count alike, whatever their dimensions).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = NDArray[np.floating[Any]]  # Any: of any precision

DIMENSIONS: Final = 32
LEAST_CELLS: Final = 20
"""Cells without which no threshold can be fitted."""
_LEVEL: Final = 0.99
_MARGIN: Final = 1.1
"""The threshold is this times the distance that `_LEVEL` of known cells, which nothing was fitted on, keep to."""
_FOLDS: Final = 5
_FLOOR: Final = 1e-3
"""Of the greatest spread: no direction counts as narrower, so that rounding never looks like strangeness."""


@dataclass(frozen=True, slots=True)
class Space:
    """The place of M known cells among features of F numbers."""

    mean: Floats
    """F."""
    components: Floats
    """D × F, orthonormal rows, D ≤ `DIMENSIONS`."""
    deviations: Floats
    """D: standard deviations along the components."""
    residual: float
    """Root mean square length of what the components leave out."""

    def distances(self, features: Features) -> Floats:
        """Return how far N cells (features N × F) lie from the known ones: about 1 for a known cell.

        The root mean square of the standardised coordinates, and of the standardised residual. Raises ValueError
        where the features have another length.
        """
        centred = features.astype(np.float64) - self.mean
        inside = centred @ self.components.T
        outside = np.sqrt(np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)) / self.residual
        mahalanobis = ((inside / self.deviations) ** 2).mean(axis=1)
        result: Floats = np.sqrt((mahalanobis + outside**2) / 2.0)
        return result


def fit(points: Floats, *, dimensions: int) -> Space:
    """Return the space of M points (M × F, M ≥ 2) with at most ``dimensions`` components (at least 1)."""
    mean = points.mean(axis=0)
    _, _, rows = np.linalg.svd(points - mean, full_matrices=False)
    return around(mean, rows[: max(1, min(dimensions, DIMENSIONS, *rows.shape))], points)


def around(mean: Floats, components: Floats, points: Floats) -> Space:
    """Return the space of given axes, with the spread that ``points`` (M × F) have along and beside them."""
    centred = points - mean
    inside = centred @ components.T
    left = np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
    deviations = np.sqrt((inside**2).mean(axis=0))
    least = max(1e-6, _FLOOR * float(np.sqrt((centred**2).sum(axis=1).mean())))
    return Space(mean, components, np.maximum(deviations, least), float(max(np.sqrt(left.mean()), least)))


def threshold(distances: Floats) -> float:
    """Return the distance beyond which a cell is strange, from those of known cells that nothing was fitted on."""
    return max(float(np.quantile(distances, _LEVEL)) * _MARGIN, 1e-6)


def crossed(points: Floats, *, dimensions: int) -> Floats:
    """Return the distance of each of M points from the space of the others, left out a fifth at a time."""
    fold = np.arange(len(points)) % _FOLDS
    result = np.empty(len(points))
    for number in range(_FOLDS):
        result[fold == number] = fit(points[fold != number], dimensions=dimensions).distances(points[fold == number])
    return result
