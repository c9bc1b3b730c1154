"""How a site's images differ from those a model learnt from, and what brings them nearer: dye and magnification.

No torch: an analysing node needs none. What a site has chosen stays on the site and never breaks the model.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.laboratory import Dye, Triple
from shared.contracts.training import (
    CalibrationSummary,
)
from shared.vision import dye
from shared.vision.dye import FACTORS, STAINED, Factor, Macenko, Reinhard
from shared.vision.preprocessing import Pixels

__all__ = ["FACTORS", "STAINED", "Density", "SiteView", "density", "density_of", "towards", "views_towards"]

Floats = NDArray[np.float64]
Density = Triple
"""Mean optical density (natural logarithm) per channel of the pixels that took dye."""

_TABLE: Final = -np.log((np.arange(256) + 1.0) / 256.0)
_PLAIN: Final = (1.0, 1.0, 1.0)


class SiteView(BaseModel):
    """How a site's cells are shown to a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: tuple[Factor, Factor, Factor] = _PLAIN
    """By which the optical density of each channel is multiplied."""
    change: Reinhard | Macenko | None = None
    """Another way to change the dye, in place of the factors; see `shared.vision.dye`."""
    surround: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0
    """How much wider than usual a cell is cut: more than 1 where the site's cells fill their boxes more."""

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return self.factors == _PLAIN and self.change is None and self.surround == 1.0

    @property
    def method(self) -> str:
        """What changes the dye: ``density``, ``reinhard`` or ``macenko``; ``none`` where it stays."""
        if self.change is not None:
            return "reinhard" if isinstance(self.change, Reinhard) else "macenko"
        return "none" if self.factors == _PLAIN else "density"

    def coloured(self, crop: Pixels) -> Pixels:
        """Return ``crop`` (height × width × RGB) with its dyes made stronger, weaker or of another hue."""
        if self.change is not None:
            return dye.recoloured(crop, self.change)
        if self.factors == _PLAIN:
            return crop
        tables = _tables(self.factors)
        return np.stack([tables[channel][crop[..., channel]] for channel in range(3)], axis=-1)


def _tables(factors: Density) -> NDArray[np.uint8]:
    levels = np.exp(-np.outer(factors, _TABLE)) * 256.0 - 1.0
    return np.asarray(np.clip(np.round(levels), 0, 255), np.uint8)


def density(crops: Iterable[Pixels]) -> Density | None:
    """Return the mean optical density of the stained pixels of white-balanced crops; None where none took dye."""
    return density_of(dye.stained_pixels(crops))


def density_of(pixels: Pixels) -> Density | None:
    """Return the mean optical density of stained pixels (N × RGB); None where there is none."""
    if not len(pixels):
        return None
    red, green, blue = (round(float(value), 4) for value in _TABLE[pixels].mean(axis=0))
    return red, green, blue


def towards(own: Density, wanted: Density) -> SiteView:
    """Return the view that brings a site's density to the one that the model learnt from, within `FACTORS`."""
    red, green, blue = (
        float(np.clip(goal / max(mine, 1e-3), *FACTORS)) for mine, goal in zip(own, wanted, strict=True)
    )
    return SiteView(factors=(red, green, blue))


def views_towards(pixels: Pixels, known: CalibrationSummary) -> Iterator[SiteView]:
    """Return the views that bring a site's dye near to what a model's card says it learnt from, each by one method.

    ``pixels`` (N × RGB) are stained ones of the site's own crops, see `dye.stained_pixels`.
    """
    own = density_of(pixels)
    if own is not None and known.density is not None:
        yield towards(own, known.density)
    mine: Dye | None = dye.dye_of(pixels)
    if mine is None or known.dye is None:
        return
    for change in (dye.reinhard(mine, known.dye), dye.macenko(mine, known.dye)):
        if change is not None:
            yield SiteView(change=change)
