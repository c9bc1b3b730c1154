"""What the laboratories that taught a model look like to it, so that a node without labels can tell an unlearnt one.

Each training hospital sums its cells' features up as a `KnownSpace` and sends that with its evaluation; the centre puts
the spaces of a run into the model version (``known.json``, hashed and signed like its other files). A node that has
nothing of its own scores a cell by the least distance to any of these laboratories.

What leaves a hospital by it are the mean of the features of at least `LEAST_TOLD` cells, at most 32 directions in which
they differ (ten cells or more to a direction), how much they do, and a threshold, all rounded to fp16. A feature vector
is what is left of an image after all layers, averaged over its places; the mean of many is no cell's. There is no
image in it, nothing of a single cell, and no name. numpy only: an analysing node needs no torch.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.contracts.laboratory import MOST_FEATURES, KnownLaboratory, KnownSpace
from shared.vision import space
from shared.vision.space import Features, Floats, Space

LEAST_TOLD: Final = 50
"""Cells without which nothing is told of them."""
_CELLS_A_DIMENSION: Final = 10


def known_space(features: Features, held_out: Features | None = None) -> KnownSpace:
    """Sum up where a laboratory's cells lie among a model's features.

    Args:
        features: of M ≥ `LEAST_TOLD` cells that the model learnt from, M × F, as `Engine.run` gives them (pooled,
            not normalised), of the plain view.
        held_out: of N cells of the same laboratory that the model did not learn from, N × F. With at least
            `space.LEAST_CELLS` of them the threshold is fitted there: a model knows its training cells by heart, so
            that others lie farther out. Without, it is fitted by leaving a fifth of ``features`` out at a time.

    Raises:
        ValueError: too few cells, more than `MOST_FEATURES` features, or numbers that fp16 does not hold.
    """
    points = features.astype(np.float64)
    if len(points) < LEAST_TOLD:
        raise ValueError(f"a laboratory is known by at least {LEAST_TOLD} cells")
    if points.shape[1] > MOST_FEATURES:
        raise ValueError(f"a space holds at most {MOST_FEATURES} features")
    dimensions = min(space.DIMENSIONS, len(points) // _CELLS_A_DIMENSION)
    exact = space.fit(points, dimensions=dimensions)
    with np.errstate(over="ignore"):
        rows = np.vstack([exact.mean, exact.components]).astype("<f2")
    if not np.isfinite(rows).all():
        raise ValueError("the features are too large for a space")
    # What is told is rounded; spread and threshold are those around the rounded axes.
    told = space.around(*_axes(rows), points)
    if held_out is not None and len(held_out) >= space.LEAST_CELLS:
        signs = told.parts(held_out)
    else:
        signs = space.crossed(points, dimensions=dimensions)
    told, threshold = space.bounded(told, signs)
    return KnownSpace(
        size=points.shape[1],
        numbers=b64encode(rows.tobytes()).decode(),
        deviations=tuple(float(value) for value in told.deviations),
        residual=told.residual,
        share=told.share or 1.0,
        threshold=threshold,
    )


def space_of(known: KnownSpace) -> Space:
    """Return a told space, to measure distances in.

    Raises:
        ValueError: its numbers are not finite.
    """
    rows = np.frombuffer(b64decode(known.numbers), "<f2").reshape(-1, known.size)
    if not np.isfinite(rows).all():
        raise ValueError("a space holds numbers that are not finite")
    mean, components = _axes(rows)
    return Space(mean, components, np.asarray(known.deviations), known.residual, known.share)


def _axes(rows: Features) -> tuple[Floats, Floats]:
    """Return the mean, and the components made orthonormal again after rounding."""
    exact = rows.astype(np.float64)
    basis, triangle = np.linalg.qr(exact[1:].T)
    return exact[0], (basis * np.sign(np.where(np.diag(triangle) == 0, 1.0, np.diag(triangle)))).T


@dataclass(frozen=True, slots=True)
class Known:
    """The laboratories that a model learnt from."""

    spaces: tuple[tuple[Space, float], ...]
    """Each with its threshold; at least one."""

    def scores(self, features: Features) -> Floats:
        """Return for N cells (features N × F) the least distance to a known laboratory; 1.0 is at its threshold.

        Raises ValueError where the features have another length than those that the laboratories told of.
        """
        result: Floats = np.min([one.distances(features) / limit for one, limit in self.spaces], axis=0)
        return result


def known(laboratories: Iterable[KnownLaboratory]) -> Known | None:
    """Return what a model carries, to score cells by; None where it carries nothing of that kind.

    Raises:
        ValueError: a space holds numbers that are not finite.
    """
    return known_of(one.space for one in laboratories if one.space is not None)


def known_of(spaces: Iterable[KnownSpace]) -> Known | None:
    """Return these spaces, to score cells by; see `known`."""
    made = tuple((space_of(one), one.threshold) for one in spaces)
    return Known(made) if made else None
