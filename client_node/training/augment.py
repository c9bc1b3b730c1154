"""Different looks at the same cells: turned, mirrored, scaled, blurred, and stained and lit by another laboratory.

Works on batches, on the device they lie on. Every random number comes from the caller's numpy generator, so that the
same seed gives the same looks on a CPU and a GPU.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shared.contracts.training import Augmentation

Floats = NDArray[np.float64]

VERSION: Final = 4
"""Part of a cache's key: raise it when a view of the same cell would look different."""
SURROUND: Final = 1.44
"""How much wider than what the network sees the crops are that `looks` takes: a turn then shows real surroundings."""

# Optical density of haematoxylin, eosin and a residual (Ruifrok & Johnston 2001), rows of unit length.
_STAINS: Final = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
_BLUR_SHARE: Final = 0.35
_COARSE_SHARE: Final = 0.15
_KERNEL: Final = 4


@dataclass(frozen=True, slots=True)
class Strength:
    """How far looks go; a range [−x, x] is of a logarithm unless it says otherwise."""

    scale: tuple[float, float]
    shift: float
    """In crop sides, not a logarithm."""
    density: float
    """How much dye in all."""
    channel_density: float
    stain: float
    """How much of each dye."""
    mixing: float
    """How much the camera's channels leak into each other, not a logarithm."""
    light: float
    channel_light: float
    contrast: float
    """Exponent of the optical density."""
    blur: float
    """Largest standard deviation in pixels."""


STRENGTHS: Final = {
    Augmentation.SUBTLE: Strength((0.85, 1.15), 0.04, 0.12, 0.05, 0.0, 0.0, 0.05, 0.02, 0.0, 0.6),
    Augmentation.MILD: Strength((0.8, 1.2), 0.04, 0.3, 0.15, 0.0, 0.0, 0.1, 0.05, 0.0, 0.8),
    Augmentation.STRONG: Strength((0.7, 1.35), 0.04, 0.5, 0.25, 0.3, 0.1, 0.2, 0.1, 0.2, 1.5),
}
"""`STRONG` was meant for unknown laboratories. It does not help there once the dye is brought near, and it hides what
tells an eosinophil in a pale stain; see docs/model-quality.md. `SUBTLE` is for a laboratory by itself: with it BCCD's
eosinophils and neutrophils are told apart better than with `MILD`."""


def looks(crops: Tensor, size: int, strength: Strength, random: np.random.Generator) -> Tensor:
    """Return a random look at each of N crops.

    ``crops``: N × 3 × W × W float in 0–1, `SURROUND` times as wide as what the network sees. Returns N × 3 × size ×
    size float in 0–1.
    """
    return _blurred(recoloured(moved(crops, size, strength, random), strength, random), strength, random)


def centre(crops: Tensor, size: int) -> Tensor:
    """Return what analysis sees of ``crops`` (see `looks`): their middle, N × 3 × size × size."""
    return _sampled(crops, size, _rotation(np.zeros(len(crops)), np.ones(len(crops)), np.ones(len(crops))))


def moved(crops: Tensor, size: int, strength: Strength, random: np.random.Generator) -> Tensor:
    """Turn by any angle, mirror, scale and shift; beyond the crop its mirror image comes into sight."""
    count = len(crops)
    angle = random.uniform(0.0, 2.0 * np.pi, count)
    zoom = random.uniform(*strength.scale, count)
    mirror = np.where(random.random(count) < 0.5, -1.0, 1.0)
    matrix = _rotation(angle, zoom, mirror)
    matrix[:, :, 2] = random.uniform(-strength.shift, strength.shift, (count, 2))
    return _sampled(crops, size, matrix)


def _rotation(angle: Floats, zoom: Floats, mirror: Floats) -> Floats:
    """Return N × 2 × 3 matrices from places in the look to places in the crop."""
    scale = 1.0 / (SURROUND * zoom)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    nothing = np.zeros_like(cosine)
    rows = ((cosine * mirror, sine, nothing), (-sine * mirror, cosine, nothing))
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def _sampled(crops: Tensor, size: int, matrix: Floats) -> Tensor:
    theta = torch.from_numpy(matrix).to(crops)
    grid = functional.affine_grid(theta, [len(crops), 3, size, size], align_corners=False)
    return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def recoloured(pixels: Tensor, strength: Strength, random: np.random.Generator) -> Tensor:
    """Vary the dyes and the light of N × 3 × H × W pixels in 0–1.

    Light that passes a stained cell falls off exponentially with the dye (Beer–Lambert): more or less of a dye
    multiplies the optical density of that dye, another lamp multiplies the intensity.
    """
    count = len(pixels)

    def factor(limit: float, channels: int) -> Tensor:
        return torch.from_numpy(np.exp(random.uniform(-limit, limit, (count, channels, 1, 1)))).to(pixels)

    density = -torch.log((pixels * 255.0 + 1.0) / 256.0)
    if strength.stain or strength.mixing:
        density = torch.einsum("nchw,ncd->ndhw", density, _mixing(count, strength, random).to(pixels))
    density = density * factor(strength.density, 1) * factor(strength.channel_density, 3)
    if strength.contrast:
        density = density.clamp_min(0.0) ** factor(strength.contrast, 1)
    return (torch.exp(-density) * factor(strength.light, 1) * factor(strength.channel_light, 3)).clamp(0.0, 1.0)


def _mixing(count: int, strength: Strength, random: np.random.Generator) -> Tensor:
    """Return N × 3 × 3: to dyes, each by its own factor, back to channels, and a leak between these."""
    stains = np.asarray(_STAINS)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    factors = np.exp(random.uniform(-strength.stain, strength.stain, (count, 3)))
    leak = np.eye(3) + random.uniform(-strength.mixing, strength.mixing, (count, 3, 3))
    return torch.from_numpy(np.linalg.inv(stains) @ (factors[:, :, None] * stains) @ leak)


def _blurred(pixels: Tensor, strength: Strength, random: np.random.Generator) -> Tensor:
    """Another objective or focus for the whole batch: blurred, or of a coarser resolution."""
    chance, amount = random.random(2)
    side = pixels.shape[-1]
    if chance < _BLUR_SHARE and strength.blur:
        sigma = 0.05 + float(amount) * strength.blur
        places = torch.arange(-_KERNEL, _KERNEL + 1, device=pixels.device, dtype=pixels.dtype)
        weights = torch.exp(-(places**2) / (2.0 * sigma**2))
        weights = (weights / weights.sum()).expand(3, 1, 1, -1)
        wide = functional.pad(pixels, (_KERNEL, _KERNEL, _KERNEL, _KERNEL), mode="replicate")
        rows = functional.conv2d(wide, weights, groups=3)
        # The weights add up to one but for the last bit.
        return functional.conv2d(rows, weights.transpose(2, 3), groups=3).clamp_max(1.0)
    if chance > 1.0 - _COARSE_SHARE:
        coarse = max(8, round(side * (0.4 + 0.5 * float(amount))))
        small = functional.interpolate(pixels, size=(coarse, coarse), mode="area")
        return functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    return pixels
