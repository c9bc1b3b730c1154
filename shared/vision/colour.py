"""How a site's images differ from those a model learnt from, and what brings them nearer: dye and magnification.

numpy only: an analysing node needs no torch. What a site has chosen stays on the site and never breaks the model.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.vision.preprocessing import Pixels

Floats = NDArray[np.float64]
Density = tuple[float, float, float]
"""Mean optical density (natural logarithm) per channel of the pixels that took dye."""

STAINED: Final = 0.25
"""Optical density, averaged over the channels, from which a pixel took dye."""
FACTORS: Final = (0.5, 2.0)
"""No dye is changed by more: an image that needs it is no image of this kind."""
_STEP: Final = 3
_TABLE: Final = -np.log((np.arange(256) + 1.0) / 256.0)

Factor = Annotated[float, Field(ge=FACTORS[0], le=FACTORS[1])]


class SiteView(BaseModel):
    """How a site's cells are shown to a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: tuple[Factor, Factor, Factor] = (1.0, 1.0, 1.0)
    """By which the optical density of each channel is multiplied."""
    surround: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0
    """How much wider than usual a cell is cut: more than 1 where the site's cells fill their boxes more."""

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return self.factors == (1.0, 1.0, 1.0) and self.surround == 1.0

    def coloured(self, crop: Pixels) -> Pixels:
        """Return ``crop`` (height × width × RGB) with its dyes made stronger or weaker."""
        if self.factors == (1.0, 1.0, 1.0):
            return crop
        tables = _tables(self.factors)
        return np.stack([tables[channel][crop[..., channel]] for channel in range(3)], axis=-1)


def _tables(factors: Density) -> NDArray[np.uint8]:
    levels = np.exp(-np.outer(factors, _TABLE)) * 256.0 - 1.0
    return np.asarray(np.clip(np.round(levels), 0, 255), np.uint8)


def density(crops: Iterable[Pixels]) -> Density | None:
    """Return the mean optical density of the stained pixels of white-balanced crops; None where none took dye."""
    total, count = np.zeros(3), 0
    for crop in crops:
        values = _TABLE[crop[::_STEP, ::_STEP].reshape(-1, 3)]
        stained = values[values.mean(axis=1) > STAINED]
        total += stained.sum(axis=0)
        count += len(stained)
    if not count:
        return None
    red, green, blue = (round(float(value), 4) for value in total / count)
    return red, green, blue


def towards(own: Density, wanted: Density) -> SiteView:
    """Return the view that brings a site's density to the one that the model learnt from, within `FACTORS`."""
    red, green, blue = (
        float(np.clip(goal / max(mine, 1e-3), *FACTORS)) for mine, goal in zip(own, wanted, strict=True)
    )
    return SiteView(factors=(red, green, blue))
