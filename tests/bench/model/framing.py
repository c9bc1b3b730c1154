"""Cells framed as another source's are: by their own size, or all alike.

A microscope's gallery shows every cell at one magnification, so that a small lymphocyte fills less of its picture than
a monocyte; boxes in a field are as large as their cells. A network learns the one or the other, and reads cells framed
the other way worse. Neither way needs a label.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client_node.analysis.detection import Box, propose
from client_node.datasets.labelled import LabelledCell
from shared.vision.images import load_image


def by_own_size(cells: Sequence[LabelledCell]) -> list[LabelledCell]:
    """Return images of single cells with a box around the cell in their middle; as they are where none is found."""
    return [cell if cell.box is not None else replace(cell, box=_middle(cell)) for cell in cells]


def all_alike(cells: Sequence[LabelledCell], side: float) -> list[LabelledCell]:
    """Return boxed cells with boxes of one ``side`` in pixels about their own centres; others as they are."""
    return [cell if cell.box is None else replace(cell, box=_about(cell.box, side)) for cell in cells]


def usual_side(cells: Sequence[LabelledCell]) -> float:
    """Return the median of the longer sides of the cells' boxes (at least one), in pixels."""
    return float(np.median([max(_sides(cell.box)) for cell in cells if cell.box is not None]))


def _middle(cell: LabelledCell) -> Box | None:
    image = load_image(cell.path)
    middle = image.shape[1] / 2, image.shape[0] / 2
    found = [one.box for one in propose(image, generous=False) if _holds(one.box, middle)]
    return min(found, key=lambda box: _off(box, middle), default=None)


def _holds(box: Box, place: tuple[float, float]) -> bool:
    return box[0] <= place[0] <= box[2] and box[1] <= place[1] <= box[3]


def _off(box: Box, place: tuple[float, float]) -> float:
    return float(np.hypot((box[0] + box[2]) / 2 - place[0], (box[1] + box[3]) / 2 - place[1]))


def _about(box: Box, side: float) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2)


def _sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]
