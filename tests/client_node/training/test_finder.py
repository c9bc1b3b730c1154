"""Training the step that accepts or rejects proposals."""

import json
from pathlib import Path

import numpy as np
import torch

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import LabelledField, MarkedObject
from client_node.datasets.splits import Split
from client_node.training.finder import Lesson, joined, lessons, train_finder, turned, turned_boxes
from client_node.training.places import field_examples, judged, single_examples
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from shared.vision.boxes import KINDS, decode, encode
from shared.vision.finder import Finder
from shared.vision.model import build
from tests.client_node.analysis.factories import draw_field, save

CELL, PLATELET = ObjectKind.CELL, ObjectKind.PLATELET
SPOTS = [(CellClass.NEUTROPHIL, 150, 120), (CellClass.EOSINOPHIL, 400, 200)]


def marked() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tuple[MarkedObject, ...]]:
    image, boxes = draw_field(0, SPOTS)
    return image, tuple(MarkedObject(box, CELL) for box in boxes)


def test_a_place_shows_the_cell_that_it_covers_best() -> None:
    objects = [MarkedObject((100, 100, 200, 200), CELL), MarkedObject((300, 300, 320, 320), PLATELET)]
    cell = judged((105, 100, 205, 200), objects)
    assert cell is not None
    assert (cell.kind, cell.cell) == (CELL, (100, 100, 200, 200))
    other = judged((300, 300, 321, 321), objects)
    assert other is not None
    assert (other.kind, other.cell) == (PLATELET, None)
    nothing = judged((500, 10, 560, 80), objects)
    assert nothing is not None
    assert nothing.kind is ObjectKind.BACKGROUND
    assert judged((145, 100, 245, 200), objects) is None  # a matter of taste


def test_a_place_with_two_cells_is_no_cell() -> None:
    objects = [MarkedObject((100, 100, 150, 150), CELL), MarkedObject((150, 100, 200, 150), CELL)]
    both = judged((100, 90, 200, 160), objects)
    assert both is not None
    assert both.kind is ObjectKind.BACKGROUND


def test_a_field_teaches_cells_and_what_is_none() -> None:
    image, objects = marked()
    found = field_examples(image, objects, np.random.default_rng(0))
    kinds = {one.kind for one in found}
    assert {CELL, ObjectKind.BACKGROUND} <= kinds
    assert sum(one.plain for one in found) >= 2
    assert any(one.frame is not None for one in found)  # cells at an edge that was drawn through them


def test_an_image_of_one_cell_teaches_where_it_lies() -> None:
    image, boxes = draw_field(0, SPOTS[:1])
    x, y = (boxes[0][0] + boxes[0][2]) // 2, (boxes[0][1] + boxes[0][3]) // 2
    single = np.ascontiguousarray(image[y - 80 : y + 80, x - 80 : x + 80])
    found = single_examples(single, PLATELET, np.random.default_rng(0))
    assert found
    assert {one.kind for one in found} <= {PLATELET, ObjectKind.BACKGROUND}


def test_turned_boxes_go_with_turned_maps() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 1, 6] = 1.0  # above right of the middle
    boxes = np.array([[0.3, -0.3, -1.0, -0.5]], np.float32)
    for which in range(8):
        row, column = (int(place) for place in torch.nonzero(turned(maps, which)[0, 0])[0])
        dx, dy, across, down = turned_boxes(boxes, which)[0]
        assert (np.sign(dx), np.sign(dy)) == (np.sign(column - 3.5), np.sign(row - 3.5))
        assert (across, down) == ((-0.5, -1.0) if which & 4 else (-1.0, -0.5))


def test_finder_learns_to_tell_and_to_place_and_is_the_same_under_a_seed() -> None:
    random = np.random.default_rng(0)
    count = 200
    kinds = np.where(np.arange(count) % 2 == 0, KINDS.index(CELL), KINDS.index(PLATELET)).astype(np.int64)
    maps = random.normal(0, 0.1, (count, 6, 4, 4)).astype(np.float16)
    maps[kinds == KINDS.index(CELL), 0] += 2.0
    maps[kinds == KINDS.index(PLATELET), 1] += 2.0
    boxes = np.zeros((count, 4), np.float32)
    boxes[:, 2:] = -0.4
    lesson = joined([Lesson(maps, kinds, boxes)])
    assert lesson.cells == count // 2
    finders = [Finder(6, seed=1) for _ in range(2)]
    for finder in finders:
        train_finder(finder, lesson, seed=3, between=lambda: None, steps=60)
    with torch.inference_mode():
        one, two = (finder(torch.from_numpy(maps).float()).numpy() for finder in finders)
    np.testing.assert_array_equal(one, two)
    assert (one[:, : len(KINDS)].argmax(axis=1) == kinds).mean() > 0.95
    seen, cell = (100, 100, 200, 200), (108, 108, 192, 192)
    goal = encode(cell, seen)
    assert np.abs(one[kinds == KINDS.index(CELL), len(KINDS) :].mean(axis=0) - boxes[0]).max() < 0.1
    assert decode(goal, seen, 640, 480) == cell


def test_a_partly_marked_field_teaches_no_background(tmp_path: Path) -> None:
    """A reader has corrected one cell of a field that nobody had marked: its other cell must not be unlearnt."""
    image, objects = marked()
    home = tmp_path / "home"
    save(tmp_path / "src/f.png", image)
    (tmp_path / "src/labels.csv").write_text("path,kind,class,group,split\nf.png,field,,f,train\n")
    import_source(home, tmp_path / "src")
    catalogue = Catalogue(home)
    (field,) = catalogue.fields()
    (home / "smears/s1").mkdir(parents=True)
    trace = {"c1": {"image_sha256": field.sha256, "box": list(objects[0].box)}}
    (home / "smears/s1/cells.json").write_text(json.dumps(trace))
    catalogue.add_feedback(b"not needed", CellClass.NEUTROPHIL, "s1", "c1")
    model = build("tf_efficientnet_lite0", 3)
    (found,) = lessons(model, catalogue.fields(), [], size=32, random=np.random.default_rng(0), between=lambda: None)
    assert set(found.kinds) == {KINDS.index(CELL)}
    assert found.cells > 2


def test_lessons_leave_out_what_cannot_be_read(tmp_path: Path) -> None:
    image, objects = marked()
    good, bad = save(tmp_path / "good.png", image), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:500])
    fields = [
        LabelledField(path, "0" * 64, 640, 480, "s", "s", path.stem, Split.TRAIN, objects) for path in (good, bad)
    ]
    model = build("tf_efficientnet_lite0", 3)
    found = list(lessons(model, fields, [], size=32, random=np.random.default_rng(0), between=lambda: None))
    assert len(found) == 1
    assert found[0].maps.shape[0] == len(found[0].kinds) == len(found[0].boxes)
    assert found[0].maps.dtype == np.float16
    assert found[0].cells > 2
