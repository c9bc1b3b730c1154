"""How the finder's outputs say where a cell lies: boxes relative to the square crop that the network saw.

Needs numpy only: an inference-only node decodes what training encoded.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.objects import ObjectKind
from shared.vision.preprocessing import BOX_MARGIN, Box

Floats = NDArray[np.float32]

KINDS: Final = tuple(ObjectKind)
"""In the order of the finder's logits."""
BOX_VALUES: Final = 4
"""The centre's offset (x, y) from the crop's, in crop sides, and the logarithms of width and height in crop sides."""
OUTPUTS: Final = len(KINDS) + BOX_VALUES
_FARTHEST: Final = 0.5
_SIDES: Final = (-3.0, 0.7)


def crop_square(box: Box) -> tuple[float, float, float]:
    """Return (centre x, centre y, side) in pixels of the square that `preprocessing.cell_crop` cuts for ``box``."""
    x0, y0, x1, y1 = box
    return (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * BOX_MARGIN


def encode(cell: Box, seen: Box) -> Floats:
    """Return the values (4, float32) that say where ``cell`` lies in the crop cut for ``seen``; both in pixels."""
    x, y, side = crop_square(seen)
    width, height = cell[2] - cell[0], cell[3] - cell[1]
    offset = ((cell[0] + cell[2]) / 2 - x) / side, ((cell[1] + cell[3]) / 2 - y) / side
    return np.array([*offset, np.log(width / side), np.log(height / side)], np.float32)


def decode(values: Floats, seen: Box, width: int, height: int) -> Box:
    """Return the box that ``values`` (see `encode`) mean, cut at the edges of a field of ``width`` × ``height``.

    Values that would lie outside the crop or make no cell are brought to the nearest that do: a network may say
    anything. Where nothing of the box is inside the field the answer is ``seen``.
    """
    x, y, side = crop_square(seen)
    dx, dy = np.clip(values[:2], -_FARTHEST, _FARTHEST)
    across, down = np.exp(np.clip(values[2:], *_SIDES)) * side / 2
    middle_x, middle_y = x + float(dx) * side, y + float(dy) * side
    box = (
        max(0, round(middle_x - float(across))),
        max(0, round(middle_y - float(down))),
        min(width, round(middle_x + float(across))),
        min(height, round(middle_y + float(down))),
    )
    return box if box[0] < box[2] and box[1] < box[3] else seen
