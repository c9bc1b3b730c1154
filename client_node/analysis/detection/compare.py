"""A finder beside plain proposals, on fields whose white cells are all marked: whether a site does better without it.

A finder is averaged over hospitals, and what knows the others' fields may fail on this one's. A site that has marked
fields sees that; where it does, proposals by colour stay, each of which is a cell to read.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection.accept import accept
from client_node.analysis.detection.proposals import Box, propose
from client_node.datasets.labelled import LabelledField
from shared.contracts.errors import DataInvalidError
from shared.contracts.training import FinderMetrics
from shared.vision.images import load_image
from shared.vision.preprocessing import Pixels, cell_crop, white_point

Look = Callable[[Sequence[Pixels]], NDArray[np.float32]]
"""Crops of N places → what the finder says of them: N × `boxes.OUTPUTS`."""

MOST_FIELDS: Final = 40


def compare(fields: Iterable[LabelledField], look: Look, *, pause: Callable[[], object]) -> FinderMetrics | None:
    """Return what the finder and plain proposals make of fields; None where no readable one is marked completely.

    ``fields`` must have taught neither. At most `MOST_FIELDS` are looked at, chosen by their hashes; ``pause`` is
    called before each.
    """
    marked = sorted((one for one in fields if one.complete), key=lambda one: one.sha256)[:MOST_FIELDS]
    seen = cells = found = extra = plain_found = plain_extra = 0
    for field in marked:
        pause()
        try:
            image = load_image(field.path)
        except DataInvalidError:
            continue
        seen, cells = seen + 1, cells + len(field.cells)
        boxes = _found(image, look)
        hits = paired(field.cells, boxes)
        found, extra = found + hits, extra + len(boxes) - hits
        plain = [one.box for one in propose(image, generous=False)]
        hits = paired(field.cells, plain)
        plain_found, plain_extra = plain_found + hits, plain_extra + len(plain) - hits
    if not seen:
        return None
    return FinderMetrics(
        fields=seen, cells=cells, found=found, extra=extra, plain_found=plain_found, plain_extra=plain_extra
    )


def _found(image: Pixels, look: Look) -> list[Box]:
    boxes = [one.box for one in propose(image, generous=True)]
    if not boxes:
        return []
    white = white_point(image)
    height, width = image.shape[:2]
    objects = look([cell_crop(image, box, white) for box in boxes])
    return [one.box for one in accept(boxes, objects, width, height).cells]


def paired(cells: Sequence[Box], boxes: Sequence[Box]) -> int:
    """Return how many of the marked cells were found: a box whose middle lies in a cell answers for it, each for one.

    The nearest middles are paired first.
    """
    pairs = sorted(
        (_apart(cell, box), number, other)
        for number, cell in enumerate(cells)
        for other, box in enumerate(boxes)
        if _inside(box, cell)
    )
    taken: set[int] = set()
    used: set[int] = set()
    for _, number, other in pairs:
        if number not in taken and other not in used:
            taken.add(number)
            used.add(other)
    return len(taken)


def _inside(box: Box, cell: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return cell[0] <= x <= cell[2] and cell[1] <= y <= cell[3]


def _apart(one: Box, other: Box) -> float:
    return float(np.hypot(one[0] + one[2] - other[0] - other[2], one[1] + one[3] - other[1] - other[3]))
