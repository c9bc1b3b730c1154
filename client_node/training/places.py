"""Places of an image that teach the finder: what each shows, and where exactly the cell lies in it.

They come from fields in which cells are marked, and from images of single cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection import Box, overlap, propose
from client_node.datasets.labelled import MarkedObject
from shared.contracts.objects import ObjectKind
from shared.vision.boxes import BOX_VALUES, KINDS, encode
from shared.vision.preprocessing import CELL_FRACTION, Pixels, cell_crop

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

IS_CELL: Final = 0.4
"""Intersection over union with a cell's box from which a place shows that cell."""
NO_CELL: Final = 0.32
"""Below this it does not; between the two it teaches nothing."""
_COVERED: Final = 0.6
_JITTERS: Final = 6
_OFF_CENTRE: Final = 2
_CUTS: Final = 2
_PARTS: Final = 2
_OTHERS: Final = 3
_ELSEWHERE: Final = 3
_SHIFT: Final = 0.22
_ZOOM: Final = 0.35
_TRIES: Final = 30


@dataclass(frozen=True, slots=True)
class Example:
    """A place to cut out, what is there, and where the cell lies in it (None: it shows none)."""

    seen: Box
    kind: ObjectKind
    cell: Box | None
    plain: bool = False
    """Seen as analysis sees it: a proposal. The others are seen in other colours too."""
    frame: Box | None = None
    """The part of the image that counts as the field; None: all of it."""


def field_examples(
    image: Pixels, objects: Sequence[MarkedObject], random: np.random.Generator, *, complete: bool = True
) -> list[Example]:
    """Return the examples of a field (height × width × RGB uint8).

    ``complete``: all white cells of the field are among ``objects``; otherwise nothing is taken for background.
    """
    height, width = image.shape[:2]
    cells = [one.box for one in objects if one.kind is ObjectKind.CELL]
    places = [proposal.box for proposal in propose(image, generous=True)]
    found = [judged(place, objects, plain=True) for place in places]
    for cell in cells:
        found += [judged(_moved(cell, random, near=True), objects) for _ in range(_JITTERS)]
        found += [judged(_moved(cell, random, near=False), objects) for _ in range(_OFF_CENTRE)]
        found += [judged(_part(cell, random), objects) for _ in range(_PARTS)]
        found += [_cut(cell, objects, width, height, random) for _ in range(_CUTS)]
    for kind in (ObjectKind.PLATELET, ObjectKind.RED_CELL, ObjectKind.SMUDGE, ObjectKind.ARTEFACT):
        others = [one.box for one in objects if one.kind is kind]
        for position in random.permutation(len(others))[:_OTHERS]:
            found.append(judged(_moved(others[position], random, near=True), objects))
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in [*cells, *places]] or [min(width, height) // 4]
    for _ in range(_ELSEWHERE):
        side = float(random.choice(sides)) * float(np.exp(random.uniform(-0.7, 0.3)))
        found.append(judged(_around(random.uniform(0, width), random.uniform(0, height), side, side), objects))
    inside = [one for one in found if one is not None and _reaches(one.seen, one.frame or (0, 0, width, height))]
    return [one for one in inside if complete or one.kind is not ObjectKind.BACKGROUND]


def single_examples(image: Pixels, kind: ObjectKind, random: np.random.Generator) -> list[Example]:
    """Return the examples of an image (height × width × RGB uint8) whose middle shows one object of ``kind``.

    Its box is that of the proposal in the middle; where there is none the image teaches nothing.
    """
    height, width = image.shape[:2]
    middle = _around(width / 2, height / 2, CELL_FRACTION * width, CELL_FRACTION * height)
    central = [
        proposal.box
        for proposal in propose(image, generous=False)
        if not proposal.edge and _holds(proposal.box, width / 2, height / 2) and overlap(proposal.box, middle) > 0.1
    ]
    if len(central) != 1:
        return []
    (box,) = central
    objects = [MarkedObject(box, kind)]
    examples = [judged(box, objects, plain=True)]
    examples += [judged(_moved(box, random, near=True), objects) for _ in range(2)]
    examples += [judged(_moved(box, random, near=False), objects), _cut(box, objects, width, height, random)]
    return [one for one in examples if one is not None and _reaches(one.seen, one.frame or (0, 0, width, height))]


def judged(seen: Box, objects: Sequence[MarkedObject], *, plain: bool = False) -> Example | None:
    """Return what a place shows, given all objects of its field; None where that is a matter of taste."""
    cells = [one.box for one in objects if one.kind is ObjectKind.CELL]
    shares = [overlap(seen, cell) for cell in cells]
    best = max(shares, default=0.0)
    if sum(_covered(cell, seen) > _COVERED for cell in cells) > 1:
        return Example(seen, ObjectKind.BACKGROUND, None, plain)  # two at once: each has a place of its own
    if best >= IS_CELL:
        return Example(seen, ObjectKind.CELL, cells[shares.index(best)], plain)
    if best >= NO_CELL:
        return None
    if any(_covered(seen, cell) > _COVERED for cell in cells):
        return Example(seen, ObjectKind.BACKGROUND, None, plain)  # a lobe of its nucleus: the whole is proposed too
    others = [one for one in objects if one.kind is not ObjectKind.CELL]
    kinds = [one.kind for one in others if overlap(seen, one.box) >= IS_CELL]
    return Example(seen, kinds[0] if kinds else ObjectKind.BACKGROUND, None, plain)


def _moved(box: Box, random: np.random.Generator, *, near: bool) -> Box:
    """Return ``box`` moved and scaled a little, or so far that it hardly shows what it held."""
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    angle = random.uniform(0.0, 2.0 * math.pi)
    reach = random.uniform(0.0, _SHIFT) if near else random.uniform(0.6, 1.1)
    factors = np.exp(random.uniform(-_ZOOM, _ZOOM) + random.uniform(-_ZOOM / 3, _ZOOM / 3, 2))
    return _around(
        x + reach * width * math.cos(angle),
        y + reach * height * math.sin(angle),
        width * float(factors[0]),
        height * float(factors[1]),
    )


def _part(box: Box, random: np.random.Generator) -> Box:
    """Return a part of a cell's box that is about as large as a lobe of its nucleus."""
    width, height = box[2] - box[0], box[3] - box[1]
    shares = random.uniform(0.4, 0.62, 2)
    x, y = (float(random.uniform(share / 2, 1 - share / 2)) for share in shares)
    return _around(box[0] + x * width, box[1] + y * height, width * float(shares[0]), height * float(shares[1]))


def _around(x: float, y: float, width: float, height: float) -> Box:
    left, top = round(x - width / 2), round(y - height / 2)
    return left, top, left + max(4, round(width)), top + max(4, round(height))


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _cut(
    cell: Box, objects: Sequence[MarkedObject], width: int, height: int, random: np.random.Generator
) -> Example | None:
    """Return the cell as it would look were the field to end in its midst: cells at the edge are few, and look odd."""
    share = random.uniform(0.35, 0.75)
    frame = [0, 0, width, height]
    side = int(random.integers(0, 4))
    low, high = cell[side % 2], cell[side % 2 + 2]
    frame[side] = round(high - share * (high - low)) if side < 2 else round(low + share * (high - low))
    within = (frame[0], frame[1], frame[2], frame[3])
    left = _clipped(cell, within)
    if left is None:
        return None
    seen = _clipped(_moved(left, random, near=True), within)
    others = [replace(one, box=box) for one in objects if (box := _clipped(one.box, within)) is not None]
    example = None if seen is None else judged(seen, others)
    return None if example is None else replace(example, frame=within)


def _clipped(box: Box, frame: Box) -> Box | None:
    x0, y0, x1, y1 = max(box[0], frame[0]), max(box[1], frame[1]), min(box[2], frame[2]), min(box[3], frame[3])
    return (x0, y0, x1, y1) if x1 - x0 >= 4 and y1 - y0 >= 4 else None


def crop(image: Pixels, example: Example, white: NDArray[np.float64]) -> Pixels:
    """Return what the network sees of an example's place (square RGB uint8); ``white`` is the image's white point."""
    if example.frame is None:
        return cell_crop(image, example.seen, white)
    x0, y0, x1, y1 = example.frame
    seen = example.seen
    return cell_crop(image[y0:y1, x0:x1], (seen[0] - x0, seen[1] - y0, seen[2] - x0, seen[3] - y0), white)


def _reaches(box: Box, frame: Box) -> bool:
    return _holds(frame, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def _covered(inner: Box, outer: Box) -> float:
    across = min(inner[2], outer[2]) - max(inner[0], outer[0])
    down = min(inner[3], outer[3]) - max(inner[1], outer[1])
    return max(0, across) * max(0, down) / ((inner[2] - inner[0]) * (inner[3] - inner[1]))


def targets(examples: Sequence[Example]) -> tuple[Labels, Floats]:
    """Return the examples' kinds (N positions in `KINDS`) and boxes (N × 4 float32, 0 where there is no cell)."""
    kinds = np.array([KINDS.index(one.kind) for one in examples], np.int64)
    boxes = np.zeros((len(examples), BOX_VALUES), np.float32)
    for row, one in zip(boxes, examples, strict=True):
        if one.cell is not None:
            row[:] = encode(one.cell, one.seen)
    return kinds, boxes
