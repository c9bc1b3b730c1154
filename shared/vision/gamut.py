"""Which colours the dyed pixels of a laboratory's images take, so that a stain is known or not without any cell.

A stain so strange that no nucleus is found leaves no cell to judge; its colours are still there. The hue of a pixel's
optical density hardly depends on how much dye it took or on how bright the lamp was: two shares (of red and of blue in
the density of all three channels), in three steps of strength. The gamut is the set of those bins that hold nearly all
dyed pixels of a laboratory's images, and their neighbours; an image is strange by the share of its dyed pixels outside.
An image in shades of grey is not told so: grey lies between the dyes. numpy only.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.laboratory import Gamut
from shared.vision.preprocessing import WHITE, Pixels, balanced, white_point

Bins = NDArray[np.int64]
Floats = NDArray[np.float64]

SIDE: Final = 16
"""Bins along each share."""
STEPS: Final = (0.25, 0.6, 1.1)
"""Optical densities (natural logarithm, mean of the channels) at which a step of strength begins; less is no dye."""
BINS: Final = len(STEPS) * SIDE**2
LEAST_IMAGES: Final = 20
LEAST_DYED: Final = 0.005
"""Share of an image's pixels that must have taken dye for its colours to say anything."""
_MOST: Final = 0.8
"""Greatest share of red or blue that has a bin of its own."""
_HELD: Final = 0.995
_SAMPLE: Final = 4000
_FOLDS: Final = 5
_LEAST_LIMIT: Final = 0.05
_MARGIN: Final = 1.5
_SMALL: Final = 240


def colours(image: Pixels) -> Bins | None:
    """Return the bins of some of an image's dyed pixels (height × width × RGB); None where hardly any took dye."""
    step = max(1, min(image.shape[:2]) // _SMALL)
    small = np.ascontiguousarray(image[::step, ::step])
    seen = balanced(small, white_point(image)).reshape(-1, 3).astype(np.float64)
    dense = np.maximum(-np.log((seen + 1.0) / (WHITE + 1.0)), 0.0)
    strength = dense.mean(axis=1)
    dyed = strength >= STEPS[0]
    if dyed.mean() < LEAST_DYED:
        return None
    dense, strength = dense[dyed], strength[dyed]
    if len(dense) > _SAMPLE:
        some = np.linspace(0, len(dense) - 1, _SAMPLE).astype(np.int64)
        dense, strength = dense[some], strength[some]
    shares = np.minimum(dense[:, (0, 2)] / dense.sum(axis=1, keepdims=True) / _MOST * SIDE, SIDE - 1).astype(np.int64)
    step_of = np.searchsorted(STEPS, strength, side="right") - 1
    result: Bins = (step_of * SIDE + shares[:, 0]) * SIDE + shares[:, 1]
    return result


def fit(images: Iterable[Pixels]) -> Gamut | None:
    """Return the gamut of a laboratory's images; None for fewer than `LEAST_IMAGES` with dye.

    Its limit is what images that it was not made of keep to, with a margin.
    """
    found = [bins for image in images if (bins := colours(image)) is not None]
    if len(found) < LEAST_IMAGES:
        return None
    histograms = np.stack([np.bincount(bins, minlength=BINS) / len(bins) for bins in found])
    fold = np.arange(len(found)) % _FOLDS
    outside = np.concatenate(
        [1.0 - histograms[fold == number] @ _held(histograms[fold != number]) for number in range(_FOLDS)]
    )
    limit = max(_LEAST_LIMIT, _MARGIN * float(np.quantile(outside, 0.98)))
    return Gamut(bins=np.packbits(_held(histograms)).tobytes().hex(), limit=min(1.0, limit))


def strangeness(gamut: Gamut, bins: Bins) -> float:
    """Return the share of an image's dyed pixels (`colours`) outside a gamut, 1.0 at its limit."""
    inside = np.unpackbits(np.frombuffer(bytes.fromhex(gamut.bins), np.uint8))[:BINS].astype(bool)
    return float((~inside[bins]).mean()) / gamut.limit


def _held(histograms: Floats) -> NDArray[np.bool_]:
    """Return which bins hold nearly all of the images' dyed pixels, with their neighbours in hue."""
    mean = histograms.mean(axis=0)
    order = np.argsort(-mean, kind="stable")
    before = np.cumsum(mean[order]) - mean[order]
    core = np.zeros(BINS, bool)
    core[order[(before < _HELD) & (mean[order] > 0)]] = True
    padded = np.pad(core.reshape(len(STEPS), SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    grown = np.zeros_like(core.reshape(len(STEPS), SIDE, SIDE))
    for down in range(3):
        for across in range(3):
            grown |= padded[:, down : down + SIDE, across : across + SIDE]
    return grown.ravel()
