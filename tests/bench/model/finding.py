"""Finding white cells in whole fields, by grouped folds: what is proposed, accepted, missed and too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from client_node.analysis.detection import Box, detect_white_cells, propose
from client_node.analysis.detection.accept import accept
from client_node.datasets.catalogue import Catalogue, LabelledCell, LabelledField
from client_node.training.finder import Lesson, joined, lessons, train_finder
from shared.contracts.objects import ObjectKind
from shared.contracts.training import Recipe
from shared.vision import backbones, preprocessing
from shared.vision.finder import Finder
from shared.vision.model import CellModel
from tests.bench.model.evaluate import Row, share
from tests.bench.model.folds import FOLDS
from tests.bench.model.train import say

Floats = NDArray[np.float32]
_LONG: Final = 50


@dataclass(frozen=True, slots=True)
class Looked:
    """A field with what was found in it."""

    path: Path
    truth: tuple[Box, ...]
    found: tuple[Box, ...]


def counted(fields: Sequence[Looked]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (of which true cells the centre lies in a found box, which found boxes' centres lie in a true cell).

    A box answers for one cell at most, and a cell for one box: the nearest centres are paired first.
    """
    hit: list[bool] = []
    right: list[bool] = []
    for field in fields:
        taken, used = set[int](), set[int]()
        pairs = sorted(
            (_apart(cell, box), number, other)
            for number, cell in enumerate(field.truth)
            for other, box in enumerate(field.found)
            if _inside(box, cell)
        )
        for _, number, other in pairs:
            if number not in taken and other not in used:
                taken.add(number)
                used.add(other)
        hit += [number in taken for number in range(len(field.truth))]
        right += [other in used for other in range(len(field.found))]
    return np.array(hit, bool), np.array(right, bool)


def _inside(box: Box, cell: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return cell[0] <= x <= cell[2] and cell[1] <= y <= cell[3]


def _apart(one: Box, other: Box) -> float:
    return float(np.hypot(one[0] + one[2] - other[0] - other[2], one[1] + one[3] - other[1] - other[3]))


def finding_rows(model: CellModel, recipe: Recipe, home: Path, singles: Sequence[LabelledCell]) -> list[Row]:
    """Return recall and precision of the centres by grouped folds, with a finder trained on the other folds' fields.

    ``model`` must not have seen these fields; its maps stay as they are. ``singles`` are images of single cells of
    another source: the finder shall know theirs too. Beside it stands what the proposals alone would give.
    """
    fields = [field for field in Catalogue(home).fields() if field.objects]
    fold = _folds(fields)
    alone, judged = looked(model, recipe, fields, fold, singles)
    rows = []
    for name, found, goals in (
        ("proposals alone", alone, (None, None)),
        ("proposals, then the trained step", judged, (0.985, 0.965)),
    ):
        hit, right = counted(found)
        rows += [
            share(f"white cells found, centre recall, 5-fold, {name}", hit, goal=goals[0]),
            share(f"white cells found, centre precision, 5-fold, {name}", right, goal=goals[1]),
        ]
    return rows


def looked(
    model: CellModel, recipe: Recipe, fields: Sequence[LabelledField], fold: NDArray[np.int64],
    singles: Sequence[LabelledCell],
) -> tuple[list[Looked], list[Looked]]:  # fmt: skip
    """Return what the proposals alone, and the trained step after them, find in each field."""
    random = np.random.default_rng(0)
    taught = []
    for number, field in enumerate(fields):
        taught.append(_joined_or_none(model, [field], [], recipe, random))
        if (number + 1) % _LONG == 0:
            say(f"finder: {number + 1} of {len(fields)} fields seen")
    others = _joined_or_none(model, [], singles, recipe, random)
    alone, judged = [], []
    for number in range(FOLDS):
        parts = [one for one, where in zip(taught, fold, strict=True) if where != number and one is not None]
        finder = Finder(model.entry.feature_size, seed=1)
        lesson = joined([*parts, *([others] if others else [])])
        loss = train_finder(finder, lesson, seed=1, between=lambda: None)
        say(f"finder: fold {number + 1} of {FOLDS}, loss {loss:.3f} on {len(lesson.kinds)} places")
        for field, where in zip(fields, fold, strict=True):
            if where == number:
                image = preprocessing.load_image(field.path)
                truth = tuple(one.box for one in field.objects if one.kind is ObjectKind.CELL)
                alone.append(Looked(field.path, truth, tuple(detect_white_cells(image))))
                judged.append(Looked(field.path, truth, _found(model, finder, recipe, image)))
    return alone, judged


def _joined_or_none(
    model: CellModel, fields: Sequence[LabelledField], singles: Sequence[LabelledCell], recipe: Recipe,
    random: np.random.Generator,
) -> Lesson | None:  # fmt: skip
    parts = list(lessons(model, fields, singles, size=recipe.input_size, random=random, between=lambda: None))
    return joined(parts) if parts else None


def _found(model: CellModel, finder: Finder, recipe: Recipe, image: preprocessing.Pixels) -> tuple[Box, ...]:
    boxes = [one.box for one in propose(image, generous=True)]
    if not boxes:
        return ()
    entry, white = backbones.get(recipe.backbone), preprocessing.white_point(image)
    inputs = [
        preprocessing.to_input(preprocessing.cell_crop(image, box, white), recipe.input_size, entry.mean, entry.std)
        for box in boxes
    ]
    with torch.inference_mode():
        objects = finder(model.tail(model.trunk(torch.from_numpy(np.stack(inputs))))).numpy()
    height, width = image.shape[:2]
    return tuple(one.box for one in accept(boxes, objects, width, height).cells)


def _folds(fields: Sequence[LabelledField]) -> NDArray[np.int64]:
    """Return each field's fold; a group is never divided."""
    order = sorted({field.group for field in fields}, key=lambda group: sha256(group.encode()).hexdigest())
    place = {group: number % FOLDS for number, group in enumerate(order)}
    return np.array([place[field.group] for field in fields], np.int64)
