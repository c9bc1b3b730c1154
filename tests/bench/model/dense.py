"""Fields with many white cells, to time an analysis by: of real cells, or drawn."""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets import painter
from client_node.datasets.synthetic import SCANNERS
from shared.contracts.ontology import CORE_FIVE
from shared.vision import preprocessing
from shared.vision.images import load_image

_WIDTH, _HEIGHT = 640, 480
_COLUMNS: Final = 6
_CELL_SCALE: Final = 20.0
_SOFT: Final = 0.25
"""Of a cell's radius: so wide is the edge over which it passes into the glass."""


def drawn_field(cells: int = 24) -> NDArray[np.uint8]:
    """Return a drawn 640×480 field with about so many white cells on a grid."""
    columns, rows = _COLUMNS, -(-cells // _COLUMNS)
    random, scanner = np.random.default_rng(0), SCANNERS[1]
    canvas = painter.blank(_WIDTH, _HEIGHT)
    for number in range(cells):
        x, y = 60.0 + 104 * (number % columns), _HEIGHT / rows * (number // columns + 0.5)
        painter.paint_white_cell(canvas, CORE_FIVE[number % len(CORE_FIVE)], x, y, _CELL_SCALE, random)
    for number in range(columns * rows):
        painter.paint_red_cell(
            canvas, 8.0 + 104 * (number % columns), _HEIGHT / rows * (number // columns), 16.0, random
        )
    return painter.develop(canvas, scanner, random)


def dense_field(data: Path, cells: int = 24) -> NDArray[np.uint8]:
    """Return a 640×480 field of empty glass with so many real cells of the training split, each with soft edges."""
    with (data / "labels.csv").open() as handle:
        paths = [row["path"] for row in csv.DictReader(handle) if row["kind"] == "cell" and row["split"] == "train"]
    white = {cls.value for cls in CORE_FIVE}
    some = sorted(path for path in paths if Path(path).parent.name in white)
    chosen = np.random.default_rng(0).permutation(len(some))[:cells]
    columns, rows = _COLUMNS, -(-cells // _COLUMNS)
    wide, high = _WIDTH // columns, _HEIGHT // rows
    side = min(wide, high)
    field = np.full((_HEIGHT, _WIDTH, 3), preprocessing.WHITE, np.float64)
    across = np.abs(np.linspace(-1.0, 1.0, side))
    soft = np.clip((1.0 - np.hypot(across[:, None], across[None, :])) / _SOFT, 0.0, 1.0)[..., None]
    for number, place in enumerate(chosen):
        crop = preprocessing.scale(preprocessing.cell_crop(load_image(data / some[place]), None), side)
        y, x = number // columns * high, number % columns * wide + (wide - side) // 2
        part = field[y : y + side, x : x + side]
        field[y : y + side, x : x + side] = soft * crop + (1.0 - soft) * part
    return np.asarray(np.round(field), np.uint8)
