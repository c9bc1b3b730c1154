"""How sharp and how bright the images of a smear are."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection import background_colour
from shared.contracts.analysis import Cell, Quality
from shared.contracts.objects import ObjectKind

Pixels = NDArray[np.uint8]
_LUMA: Final = (0.299, 0.587, 0.114)


def focus(image: Pixels) -> float:
    """Return the variance of the Laplacian of an RGB image's grey levels (8-bit grey levels squared)."""
    red, green, blue = (np.multiply(image[..., place], weight, dtype=np.float32) for place, weight in enumerate(_LUMA))
    plane = np.pad(red + green + blue, 1, mode="symmetric")
    inner = plane[1:-1, 1:-1]
    edges = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:] - 4.0 * inner
    return float(edges.var())


def brightness(image: Pixels) -> float:
    """Return the grey level (0-255) of the background."""
    return float(background_colour(image) @ np.array(_LUMA, np.float32))


def summary(
    cells: Sequence[Cell],
    focuses: Sequence[float],
    brightnesses: Sequence[float],
    dyes: Sequence[float],
    warnings: Sequence[str],
    rejected: Mapping[ObjectKind, int],
    empty: Sequence[float] = (),
) -> Quality:
    """Return the quality of a smear from its cells and its images' figures.

    ``empty``: of each field without a cell, how strange its colours are (1: at the limit).
    """
    beyond = sum(cell.ood_score > 1.0 for cell in cells)
    return Quality(
        white_cells=sum(cell.cls.info.counts for cell in cells),
        focus=float(np.median(focuses)) if focuses else 0.0,
        brightness=float(np.median(brightnesses)) if brightnesses else 0.0,
        dye=float(np.median(dyes)) if dyes else None,
        ood_fraction=beyond / len(cells) if cells else 0.0,
        empty_fields=len(empty),
        strange_fields=sum(score > 1.0 for score in empty),
        warnings=tuple(warnings),
        rejected=dict(rejected),
    )
