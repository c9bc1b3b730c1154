"""The catalogue: classes as a model sees them, splits by group, readers' labels."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import Origin, cell_hash
from client_node.datasets.splits import Split, split_for, split_of_group
from shared.contracts.errors import ConfigError, DataInvalidError
from shared.contracts.ontology import CellClass
from tests.client_node.datasets.factories import image_bytes, put_image, put_labels

N, E, BAND = CellClass.NEUTROPHIL, CellClass.EOSINOPHIL, CellClass.BAND_NEUTROPHIL


def _home(tmp_path: Path) -> Path:
    put_image(tmp_path / "src/a.png", 1)
    put_image(tmp_path / "src/b.png", 2)
    put_image(tmp_path / "src/f.png", 3, (200, 100))
    rows: list[dict[str, object]] = [
        {"path": "a.png", "class": "band neutrophil", "group": "g", "split": "test", "source": "s"},
        {"path": "b.png", "class": "eosinophil", "group": "g", "split": "test", "source": "s"},
        {"path": "f.png", "kind": "box", "class": "eosinophil", "group": "f", "split": "val", "source": "s",
         "xmin": 10, "ymin": 10, "xmax": 60, "ymax": 60},
    ]  # fmt: skip
    put_labels(tmp_path / "src", rows)
    import_source(tmp_path / "home", tmp_path / "src")
    return tmp_path / "home"


def test_cells_of_a_subclass_are_returned_as_the_models_class(tmp_path: Path) -> None:
    catalogue = Catalogue(_home(tmp_path))
    assert Counter(c.cls for c in catalogue.cells()) == {BAND: 1, E: 2}
    assert Counter(c.cls for c in catalogue.cells(classes=[N], split="test")) == {N: 1}
    assert all(c.path.is_file() for c in catalogue.cells())


def test_census_counts_by_source_class_and_split(tmp_path: Path) -> None:
    census = Catalogue(_home(tmp_path)).census()
    assert [(r.source, r.cls, r.train, r.val, r.test) for r in census.rows] == [("s", BAND, 0, 0, 1), ("s", E, 0, 1, 1)]
    assert (census.groups, census.feedback) == (2, 0)


def test_feedback_on_an_unknown_image_stores_the_crop_for_training(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "home")
    digest = catalogue.add_feedback(image_bytes(9), E, "smear-1", "c1")
    (cell,) = catalogue.cells(split=Split.TRAIN)
    assert (cell.hash, cell.cls, cell.origin) == (digest, E, Origin.FEEDBACK)
    assert catalogue.census().feedback == 1


def test_feedback_joins_the_original_image_and_moves_its_group_into_training(tmp_path: Path) -> None:
    home = _home(tmp_path)
    catalogue = Catalogue(home)
    before = {c.cls: c for c in catalogue.cells(split="test")}
    sha256 = before[BAND].path.stem
    (home / "smears/s1").mkdir(parents=True)
    (home / "smears/s1/cells.json").write_text(json.dumps({"c1": {"image_sha256": sha256, "box": None}}))
    digest = catalogue.add_feedback(b"not needed", E, "s1", "c1")
    assert digest == before[BAND].hash == cell_hash(sha256, None)
    assert catalogue.cells(split="test") == []
    (cell,) = [c for c in catalogue.cells(split="train") if c.origin is Origin.FEEDBACK]
    assert (cell.hash, cell.cls) == (digest, E)
    import_source(home, tmp_path / "src")
    assert [c.cls for c in catalogue.cells() if c.hash == digest] == [E]


def test_feedback_on_a_found_box_replaces_the_overlapping_label(tmp_path: Path) -> None:
    home = _home(tmp_path)
    catalogue = Catalogue(home)
    (boxed,) = catalogue.cells(split="val")
    (home / "smears/s1").mkdir(parents=True)
    trace = {"c1": {"image_sha256": boxed.path.stem, "box": [12, 11, 61, 59]}}
    (home / "smears/s1/cells.json").write_text(json.dumps(trace))
    digest = catalogue.add_feedback(b"not needed", N, "s1", "c1")
    (after,) = [c for c in catalogue.cells() if c.box is not None]
    assert (after.hash, after.box, after.cls, after.split) == (digest, (12, 11, 61, 59), N, Split.TRAIN)


@pytest.mark.parametrize("marked", [True, False])
def test_feedback_does_not_make_a_fields_marking_complete(tmp_path: Path, marked: bool) -> None:
    put_image(tmp_path / "src/f.png", 3, (200, 100))
    rows: list[dict[str, object]] = [{"path": "f.png", "kind": "field", "group": "f", "split": "train"}]
    if marked:
        rows.append(
            {"path": "f.png", "kind": "box", "class": "eosinophil", "group": "f", "split": "train",
             "xmin": 10, "ymin": 10, "xmax": 60, "ymax": 60}
        )  # fmt: skip
    put_labels(tmp_path / "src", rows)
    home = tmp_path / "home"
    import_source(home, tmp_path / "src")
    catalogue = Catalogue(home)
    (field,) = catalogue.fields()
    (home / "smears/s1").mkdir(parents=True)
    (home / "smears/s1/cells.json").write_text(
        json.dumps({"c1": {"image_sha256": field.sha256, "box": [12, 11, 61, 59]}})
    )
    catalogue.add_feedback(b"not needed", N, "s1", "c1")
    (after,) = catalogue.fields()
    assert (after.cells, after.complete) == (((12, 11, 61, 59),), marked)


def test_marked_cell_joins_the_fields_original_image_in_place_of_what_it_was_split_from(tmp_path: Path) -> None:
    home = _home(tmp_path)
    catalogue = Catalogue(home)
    (field,) = (cell for cell in catalogue.cells(split="val"))
    sha256 = field.path.stem
    (home / "smears/s1").mkdir(parents=True)
    trace = {"image_sha256": sha256, "box": [12, 11, 61, 59]}
    (home / "smears/s1/cells.json").write_text(json.dumps({"c1": trace}))
    for number, box in enumerate([(10, 10, 35, 60), (36, 10, 60, 60)]):
        catalogue.add_marked(tmp_path / "not needed", box, BAND, "s1", f"r{number}", neighbour="c1", instead_of=("c1",))
    marked = [cell for cell in catalogue.cells() if cell.path == field.path]
    assert {(cell.box, cell.cls, cell.split) for cell in marked} == {
        ((10, 10, 35, 60), BAND, Split.TRAIN),
        ((36, 10, 60, 60), BAND, Split.TRAIN),
    }


def test_marked_cell_of_an_unknown_field_brings_the_stored_field_not_marked_completely(tmp_path: Path) -> None:
    put_image(tmp_path / "0.png", 5, (200, 100))
    catalogue = Catalogue(tmp_path / "home")
    digest = catalogue.add_marked(tmp_path / "0.png", (20, 20, 70, 70), E, "s1", "r1")
    assert catalogue.add_marked(tmp_path / "0.png", (20, 20, 70, 70), E, "s1", "r1") == digest
    (cell,), (field,) = catalogue.cells(), catalogue.fields()
    assert (cell.hash, cell.box, cell.cls, cell.origin) == (digest, (20, 20, 70, 70), E, Origin.FEEDBACK)
    assert (field.cells, field.complete) == (((20, 20, 70, 70),), False)
    with pytest.raises(DataInvalidError):
        catalogue.add_marked(tmp_path / "0.png", (180, 20, 230, 70), E, "s1", "r2")
    assert catalogue.cells() == [cell]


def test_a_catalogue_of_before_knows_its_marked_fields_as_complete(tmp_path: Path) -> None:
    put_image(tmp_path / "src/f.png", 3, (200, 100))
    put_image(tmp_path / "src/g.png", 4, (200, 100))
    rows: list[dict[str, object]] = [{"path": f"{name}.png", "kind": "field", "group": name} for name in "fg"]
    rows.append({"path": "f.png", "kind": "box", "class": "eosinophil", "group": "f",
                 "xmin": 10, "ymin": 10, "xmax": 60, "ymax": 60})  # fmt: skip
    put_labels(tmp_path / "src", rows)
    import_source(tmp_path / "home", tmp_path / "src")
    with closing(sqlite3.connect(tmp_path / "home/catalogue.sqlite")) as connection:
        connection.executescript("DROP TABLE complete; PRAGMA user_version = 0;")
    assert [(field.group, field.complete) for field in Catalogue(tmp_path / "home").fields()] == [
        ("f", True),
        ("g", False),
    ]


def test_feedback_with_a_broken_crop_keeps_nothing(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "home")
    with pytest.raises(DataInvalidError):
        catalogue.add_feedback(b"noise", E, "s1", "c1")
    with pytest.raises(DataInvalidError):
        catalogue.add_feedback(image_bytes(1), E, "../s1", "c1")
    assert catalogue.cells() == []


def test_catalogue_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").write_text("x" * 4096)
    with pytest.raises(ConfigError):
        Catalogue(tmp_path)


def test_split_is_stable_and_near_seventy_ten_twenty() -> None:
    counts = Counter(split_of_group(f"group-{i}") for i in range(3000))
    assert counts[Split.TRAIN] == pytest.approx(2100, abs=90)
    assert counts[Split.TEST] == pytest.approx(600, abs=70)
    assert split_for("group-1", "valid") is Split.VAL
    assert split_for("group-1", " ") is split_of_group("group-1")
