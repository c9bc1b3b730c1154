"""Different looks at the same cell: turned, mirrored, scaled, and stained by another laboratory."""

import numpy as np
from PIL import Image, ImageFilter

from shared.vision.preprocessing import Pixels, scale

VERSION = 2
"""Part of a cache's key: raise it when a view of the same cell would look different."""

_MARGIN = 0.5
_SCALE = (0.8, 1.25)
_SHIFT = 0.06
_DENSITY = (0.6, 1.6)
_CHANNEL_DENSITY = (0.8, 1.25)
_LIGHT = (0.82, 1.06)
_CHANNEL_LIGHT = (0.93, 1.07)
_BLUR_SHARE = 0.35
_BLUR = 0.014


def view(crop: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """Return a random look at ``crop`` as uint8 size × size × RGB."""
    return recoloured(moved(crop, size, random), random)


def moved(crop: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """Turn by any angle, mirror, scale and shift; what comes into sight is the mirrored surround."""
    margin = round(size * _MARGIN)
    wide = np.pad(scale(crop, size), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    angle = random.uniform(0.0, 2.0 * np.pi)
    zoom = random.uniform(*_SCALE)
    mirror = 1.0 if random.random() < 0.5 else -1.0
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    shift_x, shift_y = random.uniform(-_SHIFT, _SHIFT, 2) * size
    source = wide.shape[0] / 2
    centre = size / 2
    # Output pixel (x, y) shows source pixel (a x + b y + c, d x + e y + f).
    a, b, d, e = mirror * cos, sin, -mirror * sin, cos
    c = source + shift_x - a * centre - b * centre
    f = source + shift_y - d * centre - e * centre
    turned = Image.fromarray(wide).transform(
        (size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    if random.random() < _BLUR_SHARE:  # another objective, another focus
        turned = turned.filter(ImageFilter.GaussianBlur(random.uniform(0.0, _BLUR) * size))
    return np.asarray(turned)


def recoloured(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Vary the optical density (how much dye) and the light (lamp, white balance) of each channel.

    Light that passes a stained cell falls off exponentially with the dye (Beer–Lambert), so that a thicker or
    weaker stain multiplies the optical density, and a lamp multiplies the intensity.
    """
    density = random.uniform(*_DENSITY) * random.uniform(*_CHANNEL_DENSITY, 3)
    light = random.uniform(*_LIGHT) * random.uniform(*_CHANNEL_LIGHT, 3)
    level = (np.arange(256, dtype=np.float64) + 1.0) / 256.0
    passed = 256.0 * light[:, None] * level[None, :] ** density[:, None] - 1.0
    tables = np.clip(passed, 0, 255).astype(np.uint8)
    return np.stack([tables[channel][pixels[..., channel]] for channel in range(3)], axis=-1)
