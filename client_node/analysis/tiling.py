"""Cuts a slide into overlapping fields, so that each cell lies whole in one of them and counts in one only."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection import Box
from shared.vision.slides import Slide

Pixels = NDArray[np.uint8]

CORE: Final = 512
"""Side of the part of a tile whose cells are its own. A tile is then about as large as a camera's field, for which
finding cells was tuned: it works at one number of pixels a field, not at one magnification."""
MARGIN: Final = 96
"""Around the core; cells up to twice as wide lie whole in the tile that owns their centre."""
COARSE: Final = 0.35
"""Micrometres a pixel from which a tile is half as wide, so that its cells are not too small to be found."""
_GOLDEN: Final = 0.6180339887498949
_DYED: Final = 60
"""Difference between a pixel's lightest and darkest channel, or from white, from which it may be dyed nucleus."""
_LEAST_DYED: Final = 40
_STEP: Final = 4
_SAMPLED: Final = 24


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a slide."""

    x: int
    y: int
    width: int
    height: int
    core: Box
    """In pixels of the tile."""

    def owns(self, box: Box) -> bool:
        """Whether the centre of a cell's box (in pixels of the tile) lies in the core."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return self.core[0] <= x < self.core[2] and self.core[1] <= y < self.core[3]


def tiles(width: int, height: int, microns: float | None = None) -> Iterator[Tile]:
    """Yield the tiles of a slide of ``width`` × ``height`` pixels, in an order whose beginning is spread over it.

    Who stops early has then looked at all parts of the smear alike: white cells lie unevenly, at edges and tail.
    """
    share = 2 if microns is not None and microns > COARSE else 1
    core, margin = CORE // share, MARGIN // share
    across, down = -(-width // core), -(-height // core)
    # A large slide has a million tiles: numbers rather than objects wait for their turn.
    for number in np.argsort(_turns(across, down), kind="stable"):
        row, column = divmod(int(number), across)
        yield _tile(column * core, row * core, core, margin, (width, height))


def _tile(x: int, y: int, side: int, margin: int, slide: tuple[int, int]) -> Tile:
    width, height = slide
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + side + margin), min(height, y + side + margin)
    core = (x - left, y - top, min(width, x + side) - left, min(height, y + side) - top)
    return Tile(left, top, right - left, bottom - top, core)


def _turns(across: int, down: int) -> NDArray[np.float64]:
    """Weyl's sequence over the grid, row by row: neighbours in it are far apart on the slide."""
    columns, rows = np.arange(across, dtype=np.float64), np.arange(down, dtype=np.float64)[:, None]
    return ((columns * _GOLDEN + rows * _GOLDEN**2 * 1.7) % 1.0).ravel()


def fields(slide: Slide, *, behind: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[Tile, Pixels]]:
    """Yield the tiles that may hold a nucleus, and their pixels (height × width × RGB uint8), one in memory at a time.

    ``behind``: corners (x, y) of tiles that were looked at before; those follow that come behind the last of them.

    Raises:
        DataInvalidError: a part of the slide is damaged.
    """
    seen, waiting = slide.overview(), set(behind)
    for tile in tiles(slide.width, slide.height, slide.microns):
        if waiting:
            waiting.discard((tile.x, tile.y))
            continue
        if seen is not None:
            small, scale = seen
            x, y = int(tile.x / scale), int(tile.y / scale)
            part = small[y : int((tile.y + tile.height) / scale) + 1, x : int((tile.x + tile.width) / scale) + 1]
            if not _dyed(part, least=1):
                continue
        pixels = slide.region(tile.x, tile.y, tile.width, tile.height)
        if _dyed(pixels[::_STEP, ::_STEP], least=_LEAST_DYED):
            yield tile, pixels


def sampled(slide: Slide) -> Pixels:
    """Return what tells of a slide's colours as a whole: its overview, or some tiles beside each other, all over it.

    Raises:
        DataInvalidError: a part of the slide is damaged.
    """
    seen = slide.overview()
    if seen is not None:
        return seen[0]
    some = islice(tiles(slide.width, slide.height, slide.microns), _SAMPLED)
    parts = [slide.region(tile.x, tile.y, tile.width, tile.height)[::_STEP, ::_STEP] for tile in some]
    height = min(len(part) for part in parts)
    return np.concatenate([part[:height] for part in parts], axis=1)


def _dyed(pixels: Pixels, *, least: int) -> bool:
    """Whether enough pixels are darker in red light than in blue: nuclei are, glass and red cells are not."""
    if not pixels.size:
        return False
    values = pixels.astype(np.int16)
    bluish = (values[..., 2] - values[..., 0] > _DYED // 3) & (values[..., 0] < 255 - _DYED)
    return int(bluish.sum()) >= least
