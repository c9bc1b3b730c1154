"""From an image to what a network sees: cropping and scaling, in training and analysis alike.

Needs numpy and Pillow only, so that a node without torch analyses exactly what it was trained on.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.contracts.errors import DataInvalidError
from shared.vision.images import MIN_SIDE

VERSION = 2
"""Part of the key of cached features: raise it when a crop of the same cell would look different."""

CELL_FRACTION = 0.72
"""Share of a single-cell image's shorter side that is kept: the cell and little of its neighbours."""
BOX_MARGIN = 1.24
"""How much wider than its box a cell is cut from a field: both kinds of crop then show like surrounds."""
WHITE = 235.0
"""Grey level to which the light that passes beside the cells is brought, channel by channel."""
_WHITE_PERCENTILE = 95.0
_GAIN = (0.7, 2.0)

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]


def cell_crop(
    image: Pixels, box: Box | None, white: NDArray[np.float64] | None = None, *, surround: float = 1.0
) -> Pixels:
    """Cut the square that shows one cell.

    Without ``box`` the image is a single-cell image, and its central `CELL_FRACTION` is kept; with one
    (x0, y0, x1, y1 in pixels of ``image``) the box is made square, widened by `BOX_MARGIN` and continued past
    the image's edge by repeating the edge. ``white``: the image's `white_point`, if the caller has it already.
    ``surround`` widens the square further, for training's turned looks.
    Raises `DataInvalidError` for a box outside the image or empty.
    """
    return balanced(_cut(image, box, surround), white_point(image) if white is None else white)


def white_point(image: Pixels) -> NDArray[np.float64]:
    """Return the level per channel of the empty glass: a high percentile of the whole image."""
    step = max(1, min(image.shape[:2]) // 120)
    sample = image[::step, ::step].reshape(-1, 3)
    point: NDArray[np.float64] = np.percentile(sample, _WHITE_PERCENTILE, axis=0)
    return point


def balanced(crop: Pixels, white: NDArray[np.float64]) -> Pixels:
    """Bring ``white`` to `WHITE` in each channel: lamp and camera of a laboratory no longer tint its cells."""
    gain = np.clip(WHITE / np.maximum(white, 1.0), *_GAIN)
    tables = np.minimum(np.arange(256)[None, :] * gain[:, None] + 0.5, 255.0).astype(np.uint8)
    return np.stack([tables[channel][crop[..., channel]] for channel in range(3)], axis=-1)


def _cut(image: Pixels, box: Box | None, surround: float) -> Pixels:
    height, width = image.shape[:2]
    if box is None:
        side = max(MIN_SIDE, round(min(height, width) * CELL_FRACTION * surround))
        return _square(image, width / 2, height / 2, side)
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0 or x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise DataInvalidError("A cell's box is empty or outside its image; correct the label file.")
    if max(x1 - x0, y1 - y0) > 4 * max(height, width):
        raise DataInvalidError("A cell's box is far larger than its image; correct the label file.")
    return _square(image, (x0 + x1) / 2, (y0 + y1) / 2, max(2, round(max(x1 - x0, y1 - y0) * BOX_MARGIN * surround)))


def _square(image: Pixels, centre_x: float, centre_y: float, side: int) -> Pixels:
    height, width = image.shape[:2]
    left, top = round(centre_x - side / 2), round(centre_y - side / 2)
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return np.ascontiguousarray(image[top : top + side, left : left + side])
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return np.ascontiguousarray(image[rows[:, None], columns[None, :]])


def scale(crop: Pixels, size: int) -> Pixels:
    """Return ``crop`` scaled (bilinear with antialiasing) to a square of ``size`` pixels."""
    if crop.shape[:2] == (size, size):
        return crop
    return np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR))


def to_input(
    crop: Pixels, size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Return ``crop`` as the network's float32 3 × size × size input, normalised per channel in 0–1."""
    planes = np.ascontiguousarray(scale(crop, size).transpose(2, 0, 1))
    return np.stack([table.take(plane) for table, plane in zip(_tables(mean, std), planes, strict=True)])


@cache
def _tables(mean: tuple[float, float, float], std: tuple[float, float, float]) -> NDArray[np.float32]:
    """What each grey level becomes, channel by channel."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
    return np.asarray((levels - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None])
