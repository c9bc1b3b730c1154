"""Two ways to bring one laboratory's dye to another's, each fitted on all of a site's stained pixels, not on a crop.

A site's crops then all change by the same map of colours: a crop that is mostly nucleus is not made paler than one that
is mostly glass, and a crop of glass alone stays glass. Neither changes any colour without bounds.

- `Reinhard`: mean and spread of each channel of CIE L*a*b* (Reinhard, Ashikhmin, Gooch, Shirley: Color transfer between
  images. IEEE CG&A 21 (2001) 34-41; there in lαβ), weaker where a pixel took less dye.
- `Macenko`: the two dyes found by singular value decomposition of optical density, turned and made stronger or weaker
  (Macenko et al.: A method for normalizing histology slides for quantitative analysis. ISBI 2009, 1107-1110). What the
  two dyes do not explain stays as it is.

numpy, Pillow and scikit-image only: an analysing node needs no torch.
"""

import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict, Field
from skimage.color import lab2rgb, rgb2lab

from shared.contracts.laboratory import Dye, Triple
from shared.vision.preprocessing import WHITE, Pixels

Floats = NDArray[np.float64]

STAINED: Final = 0.25
"""Optical density (natural logarithm), averaged over the channels, from which a pixel took dye."""
FACTORS: Final = (0.5, 2.0)
"""No dye is changed by more: an image that needs it is no image of this kind."""
MOST_SHIFT: Final = 40.0
"""Of a channel of L*a*b*: the same."""
MOST_TURN: Final = 30.0
"""Degrees between a dye and the one it is turned to: the same."""
LEAST_ANGLE: Final = 5.0
"""Degrees between two dyes; below that there is only one to be seen."""
_STEP: Final = 3
_MOST_PIXELS: Final = 400_000
_LEAST_PIXELS: Final = 500
_PERCENTILES: Final = (1.0, 99.0)
_GRID: Final = 33
_TABLE: Final = -np.log((np.arange(256) + 1.0) / 256.0)

Factor = Annotated[float, Field(ge=FACTORS[0], le=FACTORS[1])]
_Shift = Annotated[float, Field(ge=-128.0 - MOST_SHIFT, le=128.0 + MOST_SHIFT, allow_inf_nan=False)]
_Entry = Annotated[float, Field(ge=-8.0, le=8.0, allow_inf_nan=False)]
_Row = tuple[_Entry, _Entry, _Entry]


class Reinhard(BaseModel):
    """Each channel of L*a*b* scaled about one mean and moved to another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[Factor, Factor, Factor]
    own: tuple[_Shift, _Shift, _Shift]
    wanted: tuple[_Shift, _Shift, _Shift]

    def __call__(self, colours: Floats) -> Floats:
        """Return N × 3 colours (0–1) changed, as far as they took dye."""
        lab = rgb2lab(colours[None])[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of colours that no screen shows; they are cut to those it does
            moved = lab2rgb(((lab - self.own) * self.scale + self.wanted)[None])[0]
        share = np.clip(_density(colours).mean(axis=1, keepdims=True) / STAINED, 0.0, 1.0)
        return np.asarray(colours + share * (moved - colours), np.float64)


class Macenko(BaseModel):
    """Optical density multiplied by a matrix that turns two dyes and changes their strength."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mixing: tuple[_Row, _Row, _Row]

    def __call__(self, colours: Floats) -> Floats:
        """Return N × 3 colours (0–1) changed."""
        dense = _density(colours) @ np.asarray(self.mixing).T
        return np.asarray(np.clip((np.exp(-dense) * (WHITE + 1.0) - 1.0) / 255.0, 0.0, 1.0), np.float64)


def _density(colours: Floats) -> Floats:
    """Return the optical density of colours (0–1) against glass, which white-balanced crops show at `WHITE`."""
    return np.asarray(-np.log((colours * 255.0 + 1.0) / (WHITE + 1.0)), np.float64)


def recoloured(crop: Pixels, change: Reinhard | Macenko) -> Pixels:
    """Return ``crop`` (height × width × RGB) with each colour changed; between grid colours it is interpolated."""
    return np.asarray(Image.fromarray(crop).filter(_lookup(change)))


@lru_cache(maxsize=8)
def _lookup(change: Reinhard | Macenko) -> ImageFilter.Color3DLUT:
    levels = np.linspace(0.0, 1.0, _GRID)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")  # red changes fastest
    colours = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    return ImageFilter.Color3DLUT(_GRID, np.clip(change(colours), 0.0, 1.0).ravel().tolist())


def stained_pixels(crops: Iterable[Pixels]) -> Pixels:
    """Return N × RGB: some of the pixels of white-balanced crops that took dye."""
    found: list[Pixels] = []
    count = 0
    for crop in crops:
        pixels = crop[::_STEP, ::_STEP].reshape(-1, 3)
        found.append(pixels[_TABLE[pixels].mean(axis=1) > STAINED])
        count += len(found[-1])
        if count >= _MOST_PIXELS:
            break
    return np.concatenate(found) if found else np.zeros((0, 3), np.uint8)


def dye_of(pixels: Pixels) -> Dye | None:
    """Return how stained pixels (N × RGB, see `stained_pixels`) look as a whole; None for too few."""
    if len(pixels) < _LEAST_PIXELS:
        return None
    lab = rgb2lab(pixels[None])[0]
    two = _dyes(_density(pixels / 255.0))
    return Dye(
        lab_mean=_triple(lab.mean(axis=0)),
        lab_deviation=_triple(np.maximum(lab.std(axis=0), 0.5)),
        stains=None if two is None else (_triple(two[0][0]), _triple(two[0][1])),
        strengths=None if two is None else (float(two[1][0]), float(two[1][1])),
    )


def _dyes(dense: Floats) -> tuple[Floats, Floats] | None:
    """Return the two dyes (2 × 3 unit vectors) of pixels' optical densities (N × 3), and how strong each is."""
    _, _, rows = np.linalg.svd(dense, full_matrices=False)
    plane = rows[:2] * np.where(rows[:2].sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    along, across = plane @ dense.T
    angles = np.percentile(np.arctan2(across, along), _PERCENTILES)
    stains = np.maximum(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane, 0.0)
    stains /= np.maximum(np.linalg.norm(stains, axis=1, keepdims=True), 1e-9)
    if _degrees(stains[0], stains[1]) < LEAST_ANGLE:
        return None
    stains = stains[np.argsort(stains[:, 2] - stains[:, 0], kind="stable")]
    strengths = np.percentile(dense @ np.linalg.pinv(stains), _PERCENTILES[1], axis=0)
    return stains, np.maximum(strengths, 1e-3)


def _degrees(one: Floats, other: Floats) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))


def _triple(values: Floats) -> Triple:
    red, green, blue = (round(float(value), 5) for value in values)
    return red, green, blue


def reinhard(own: Dye, wanted: Dye) -> Reinhard | None:
    """Return what brings a site's dye to the wanted one; None where they are too far apart."""
    if np.abs(np.subtract(wanted.lab_mean, own.lab_mean)).max() > MOST_SHIFT:
        return None
    scale = np.clip(np.divide(wanted.lab_deviation, own.lab_deviation), *FACTORS)
    return Reinhard(scale=_triple(scale), own=own.lab_mean, wanted=wanted.lab_mean)


def macenko(own: Dye, wanted: Dye) -> Macenko | None:
    """Return what turns a site's two dyes to the wanted ones; None where one is not to be seen, or they are far off."""
    if own.stains is None or own.strengths is None or wanted.stains is None or wanted.strengths is None:
        return None
    mine, goal = np.asarray(own.stains), np.asarray(wanted.stains)
    if max(map(_degrees, mine, goal)) > MOST_TURN or _degrees(mine[0], mine[1]) < LEAST_ANGLE:
        return None
    gain = np.clip(np.divide(wanted.strengths, own.strengths), *FACTORS)
    mixing = np.eye(3) + (goal.T * gain - mine.T) @ np.linalg.pinv(mine.T)
    if np.abs(mixing).max() > 8.0:
        return None
    rows = [_triple(row) for row in mixing]
    return Macenko(mixing=(rows[0], rows[1], rows[2]))
