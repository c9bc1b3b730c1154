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
from client_node.analysis.evaluation import svg
from client_node.analysis.fields import find_cells
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell, LabelledField
from client_node.datasets.splits import Split
from client_node.training.finder import Lesson, joined, lessons, train_finder
from shared.contracts.training import Recipe
from shared.vision import backbones, preprocessing
from shared.vision.finder import Finder
from shared.vision.images import load_image
from shared.vision.model import CellModel
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import loaded
from tests.bench.model.folder import started
from tests.bench.model.folds import FOLDS
from tests.bench.model.rows import Row, measure_of, share
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.train import SINGLES

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


def measure(bench: Bench) -> Measured:
    """Measure finding by grouped folds, with a network that never saw these fields, and as the model does it."""
    singles = sorted(bench.cells("pbc", "train"), key=lambda cell: cell.hash)[:SINGLES]
    recipe = bench.stage("pbc").recipe
    model = started(bench.model("pbc"), recipe).to("cpu")
    fields = [field for field in Catalogue(bench.home).fields() if field.objects]
    fold = _folds(fields)
    alone, judged = looked(model, recipe, fields, fold, singles)
    held = np.array([field.split is Split.TEST for field in fields])
    rows = [
        *_rows("5-fold, proposals alone", alone),
        *_rows("5-fold, proposals, then the trained step", judged, goals=(0.985, 0.965)),
        *_rows("the same folds, fields of the test split alone", _some(judged, held)),
    ]
    test = [field for field, is_test in zip(fields, held, strict=True) if is_test]
    rows += shipped_rows(bench.model("both"), test)
    by_fold = [row for number in range(FOLDS) for row in _rows(f"fold {number + 1}", _some(judged, fold == number))]
    chart = svg.measures_svg(
        [measure_of(row) for row in [*by_fold, *rows[2:4]]], "White cells found in BCCD's fields", name="finding"
    )
    return Measured(rows, plots={"model-finding": chart})


def shipped_rows(folder: Path, fields: Sequence[LabelledField]) -> list[Row]:
    """Return what the model in ``folder`` finds in fields of the test split, as the analysis asks it."""
    model = loaded(folder)
    generous, strict, found = list[Looked](), list[Looked](), list[Looked]()
    for field in fields:
        image = load_image(field.path)
        generous.append(Looked(field.path, field.cells, tuple(one.box for one in propose(image, generous=True))))
        strict.append(Looked(field.path, field.cells, tuple(detect_white_cells(image))))
        found.append(Looked(field.path, field.cells, tuple(one.box for one in find_cells(model, image).cells)))
    return [
        *_rows("test fields, the model of both sources by its ONNX file", found),
        share("white cells found, centre recall, test fields, generous proposals", counted(generous)[0]),
        *_rows("test fields, strict proposals alone", strict),
    ]


def _rows(name: str, found: Sequence[Looked], goals: tuple[float | None, float | None] = (None, None)) -> list[Row]:
    hit, right = counted(found)
    return [
        share(f"white cells found, centre recall, {name}", hit, goal=goals[0]),
        share(f"white cells found, centre precision, {name}", right, goal=goals[1]),
    ]


def _some(found: Sequence[Looked], keep: NDArray[np.bool_]) -> list[Looked]:
    return [one for one, kept in zip(found, keep, strict=True) if kept]


def looked(
    model: CellModel, recipe: Recipe, fields: Sequence[LabelledField], fold: NDArray[np.int64],
    singles: Sequence[LabelledCell],
) -> tuple[list[Looked], list[Looked]]:  # fmt: skip
    """Return what the proposals alone, and the trained step after them, find in each field, in their order."""
    random = np.random.default_rng(0)
    taught = []
    for number, field in enumerate(fields):
        taught.append(_joined_or_none(model, [field], [], recipe, random))
        if (number + 1) % _LONG == 0:
            say(f"finder: {number + 1} of {len(fields)} fields seen")
    others = _joined_or_none(model, [], singles, recipe, random)
    alone, judged = dict[int, Looked](), dict[int, Looked]()
    for number in range(FOLDS):
        parts = [one for one, where in zip(taught, fold, strict=True) if where != number and one is not None]
        finder = Finder(model.entry.feature_size, seed=1)
        lesson = joined([*parts, *([others] if others else [])])
        loss = train_finder(finder, lesson, seed=1, between=lambda: None)
        say(f"finder: fold {number + 1} of {FOLDS}, loss {loss:.3f} on {len(lesson.kinds)} places")
        for place, field in enumerate(fields):
            if fold[place] == number:
                image = load_image(field.path)
                alone[place] = Looked(field.path, field.cells, tuple(detect_white_cells(image)))
                judged[place] = Looked(field.path, field.cells, _found(model, finder, recipe, image))
    return [alone[place] for place in range(len(fields))], [judged[place] for place in range(len(fields))]


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


SECTION = Section(
    name="finding",
    title="Finding white cells in whole fields",
    measure=measure,
    version=1,
    seconds=(240, 240),
    models=("pbc", "both"),
    method=(
        "A cell counts as found if the centre of a box lies in its own; a box answers for one cell. The folds: by "
        "eager torch, the network is the model of PBC alone and its finder is trained on the other folds' fields. "
        "Beside them what the model of both sources finds in the test split's fields, by `find_cells` of the analysis. "
        "The threshold of acceptance was chosen on train and validation fields, which the folds hold again."
    ),
)
