"""Where a model's features of known cells lie, and how far from there another cell's are. numpy only.

Three signs, each brought to 1 where 99 % of known cells that nothing was fitted on lie below it; the greatest counts:

- how unusual a cell is along the leading principal components of known cells (Mahalanobis distance);
- how much of it these leave out (reconstruction error);
- what share of it that is. A network answers an image unlike any it knows with features that are short rather than far
  off: their residual is no longer than usual, but most of what there is (compare Wang et al.: ViM. CVPR 2022). On a
  fully trained network the first two alone told hardly any cell of an unlearnt laboratory; see docs/doubt.md.
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
_FEATURES_A_DIMENSION: Final = 4
"""Most of the features must be left out, so that there is something to tell by."""


@dataclass(frozen=True, slots=True)
class Space:
    """The place of M known cells among features of F numbers."""

    mean: Floats
    """F."""
    components: Floats
    """D × F, orthonormal rows, D ≤ `DIMENSIONS`."""
    deviations: Floats
    """D: spread along the components."""
    residual: float
    """Length of what the components leave out."""
    share: float | None
    """Its share of the whole length; None in a space of an older release, which did not look at it."""

    def parts(self, features: Features) -> Floats:
        """Return the three signs of N cells (features N × F), 3 × N, in units of this space's spreads.

        Raises ValueError where the features have another length.
        """
        centred = features.astype(np.float64) - self.mean
        inside = centred @ self.components.T
        whole = (centred**2).sum(axis=1)
        left = np.sqrt(np.maximum(whole - (inside**2).sum(axis=1), 0.0))
        along = np.sqrt(((inside / self.deviations) ** 2).mean(axis=1))
        return np.stack([along, left / self.residual, left / np.sqrt(np.maximum(whole, 1e-12)) / (self.share or 1.0)])

    def distances(self, features: Features) -> Floats:
        """Return how far N cells lie from the known ones, below 1 for nearly all of these; see `parts`."""
        signs = self.parts(features)
        if self.share is None:
            return np.asarray(np.sqrt((signs[:2] ** 2).mean(axis=0)))
        return np.asarray(signs.max(axis=0))


def fit(points: Floats, *, dimensions: int) -> Space:
    """Return the space of M ≥ 2 points (M × F) of at most ``dimensions`` components, at least 1; not yet `bounded`."""
    mean = points.mean(axis=0)
    _, _, rows = np.linalg.svd(points - mean, full_matrices=False)
    most = min(dimensions, DIMENSIONS, points.shape[1] // _FEATURES_A_DIMENSION, len(rows))
    return around(mean, rows[: max(1, most)], points)


def around(mean: Floats, components: Floats, points: Floats) -> Space:
    """Return the space of given axes, with the spread that ``points`` (M × F) have along and beside them."""
    centred = points - mean
    inside = centred @ components.T
    whole = (centred**2).sum(axis=1)
    left = np.maximum(whole - (inside**2).sum(axis=1), 0.0)
    least = max(1e-6, _FLOOR * float(np.sqrt(whole.mean())))
    share = np.sqrt((left / np.maximum(whole, 1e-12)).mean())
    return Space(
        mean,
        components,
        np.maximum(np.sqrt((inside**2).mean(axis=0)), least),
        float(max(np.sqrt(left.mean()), least)),
        float(max(share, _FLOOR)),
    )


def bounded(space: Space, signs: Floats) -> tuple[Space, float]:
    """Return a space in units in which `_LEVEL` of known cells stay below 1 in each sign, and the distance's threshold.

    ``signs`` (3 × N) are the `Space.parts` of known cells that the space was not fitted on.
    """
    limits = np.maximum(np.quantile(signs, _LEVEL, axis=1), 1e-6)
    share = min(1.0, (space.share or 1.0) * float(limits[2]))
    scaled = Space(space.mean, space.components, space.deviations * limits[0], space.residual * float(limits[1]), share)
    return scaled, float(np.quantile((signs / limits[:, None]).max(axis=0), _LEVEL)) * _MARGIN


def crossed(points: Floats, *, dimensions: int) -> Floats:
    """Return the signs (3 × M) of each of M points in the space of the others, left out a fifth at a time."""
    fold = np.arange(len(points)) % _FOLDS
    result = np.empty((3, len(points)))
    for number in range(_FOLDS):
        others = fit(points[fold != number], dimensions=dimensions)
        result[:, fold == number] = others.parts(points[fold == number])
    return result
