"""Importers: what is good goes in, what is bad is listed, nothing is half-written."""

import errno
import os
from pathlib import Path

import pytest

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.importers.names import advice, parse_names
from client_node.datasets.labelled import MarkedObject
from shared.contracts.errors import DataInvalidError, NoLabelsError, NoSpaceError, NotFoundError, UsageError
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from tests.client_node.datasets.factories import image_bytes, put_image, put_labels

N, E = CellClass.NEUTROPHIL, CellClass.EOSINOPHIL


def test_import_imagefolder_takes_plural_folders_and_skips_unknown_ones(tmp_path: Path) -> None:
    put_image(tmp_path / "src/neutrophil/a.png", 1)
    put_image(tmp_path / "src/Eosinophils/b.jpg", 2, fmt="JPEG")
    put_image(tmp_path / "src/dragon/c.png", 3)
    out = import_source(tmp_path / "home", tmp_path / "src")
    assert (out.imported, out.classes) == (2, {N: 1, E: 1})
    assert [(s.path, s.reason) for s in out.skipped] == [("dragon/c.png", "unknown label 'dragon'")]


def test_hospitals_own_names_are_taken_for_what_it_says_they_mean(tmp_path: Path) -> None:
    put_image(tmp_path / "src/Stabkernige/a.png", 1)
    put_image(tmp_path / "src/Neutrophile G./b.png", 2)
    put_image(tmp_path / "src/dragon/c.png", 3)
    names = parse_names(["stabkernige=band", "Neutrophile-G.=neutrophils"])
    out = import_source(tmp_path / "home", tmp_path / "src", names=names)
    assert (out.imported, out.classes) == (2, {CellClass.BAND_NEUTROPHIL: 1, N: 1})
    assert advice(out.skipped) == ["1 with unknown label 'dragon': say what it means with --map NAME=class."]
    assert Catalogue(tmp_path / "home").census().unmapped == 1
    more = import_source(tmp_path / "home", tmp_path / "src", names=parse_names(["dragon=eosinophil"]))
    assert more.classes == {CellClass.BAND_NEUTROPHIL: 1, N: 1, E: 1}  # the first two names are remembered
    census = Catalogue(tmp_path / "home").census()
    assert (len(census.rows), census.unmapped) == (3, 0)


def test_cells_of_unknown_labels_are_counted_by_data_set_and_not_told_of_one_that_policy_keeps_back(
    tmp_path: Path,
) -> None:
    for name, labels in (("one", ("dragon", "unicorn")), ("two", ("dragon",))):
        for number, label in enumerate(("neutrophil", *labels)):
            put_image(tmp_path / name / label / "a.png", number)
        import_source(tmp_path / "home", tmp_path / name)
    catalogue = Catalogue(tmp_path / "home")
    assert catalogue.census().unmapped == 3
    assert catalogue.census(lambda source: source == "two").unmapped == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["neutrophil"], "takes NAME=class"),
        (["=neutrophil"], "takes NAME=class"),
        (["Drache=dragon"], "no class 'dragon'. Classes: neutrophil"),
        (["Stab=band", "stab=eosinophil"], "two classes"),
    ],
)
def test_name_that_means_nothing_is_refused_with_what_there_is(given: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_names(given)


def test_import_csv_lists_every_bad_row_and_keeps_the_rest(tmp_path: Path) -> None:
    src = tmp_path / "src"
    put_image(src / "good.png", 1)
    put_image(src / "field.png", 2, (200, 100))
    (src / "text.png").write_text("hello")
    (src / "cut.jpg").write_bytes(image_bytes(3, (300, 300), "JPEG")[:2000])
    (src / "empty.png").touch()
    rows: list[dict[str, object]] = [
        {"path": "good.png", "class": "neutrophil", "split": "test"},
        {"path": "field.png", "kind": "field", "group": "f1"},
        {"path": "field.png", "kind": "box", "class": "eosinophil", "group": "f1",
         "xmin": 5, "ymin": 5, "xmax": 50, "ymax": 60},
        {"path": "field.png", "kind": "box", "class": "", "xmin": 5, "ymin": 5, "xmax": 50, "ymax": 60},
        {"path": "field.png", "kind": "box", "class": "basophil", "xmin": 5, "ymin": 5, "xmax": 500, "ymax": 60},
        {"path": "field.png", "kind": "box", "class": "basophil", "xmin": 50, "ymin": 5, "xmax": 5, "ymax": 60},
        {"path": "field.png", "kind": "box", "class": "basophil", "xmin": "x", "ymin": 5, "xmax": 5, "ymax": 60},
        {"path": "text.png", "class": "neutrophil"},
        {"path": "cut.jpg", "class": "neutrophil"},
        {"path": "empty.png", "class": "neutrophil"},
        {"path": "absent.png", "class": "neutrophil"},
        {"path": "../outside.png", "class": "neutrophil"},
        {"path": "good.png", "class": "unicorn"},
        {"path": "good.png", "class": "neutrophil", "split": "maybe"},
    ]  # fmt: skip
    put_labels(src, rows)
    out = import_source(tmp_path / "home", src)
    assert (out.imported, out.classes) == (3, {N: 1, E: 1})
    assert out.objects == {ObjectKind.CELL: 1}
    assert len(out.skipped) == 10
    reasons = {s.path: s.reason for s in out.skipped}
    assert reasons["cut.jpg"] == "The image is truncated."
    assert reasons["text.png"] == "The file is not an image."
    assert reasons["absent.png"] == "The file does not exist."
    assert "leaves the data folder" in reasons["../outside.png"]
    cells = Catalogue(tmp_path / "home").cells()
    assert sorted((c.cls, c.box, c.split) for c in cells if c.split == "test") == [(N, None, "test")]


def test_import_csv_with_labels_elsewhere_takes_only_the_asked_site(tmp_path: Path) -> None:
    for seed in (1, 2):
        put_image(tmp_path / f"src/{seed}.png", seed)
    rows: list[dict[str, object]] = [
        {"path": "1.png", "class": "neutrophil", "site": "a"},
        {"path": "2.png", "class": "neutrophil", "site": "b"},
    ]
    labels = put_labels(tmp_path, rows, "mine.csv")
    out = import_source(tmp_path / "home", tmp_path / "src", labels=labels, site="b")
    assert out.imported == 1
    assert [c.site for c in Catalogue(tmp_path / "home").cells()] == ["b"]


def test_import_voc_takes_typed_boxes_and_survives_bad_xml(tmp_path: Path) -> None:
    src = tmp_path / "src"
    put_image(src / "images/f1.png", 1, (100, 100))
    (src / "annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>50</ymax></bndbox>"
    objects = "".join(f"<object><name>{n}</name>{box}</object>" for n in ("RBC", "WBC", "Neutrophil"))
    (src / "annotations/f1.xml").write_text(f"<annotation><filename>f1.png</filename>{objects}</annotation>")
    (src / "annotations/f2.xml").write_text("<annotation><oops")
    bomb = '<!DOCTYPE a [<!ENTITY e "x">]><annotation>&e;</annotation>'
    (src / "annotations/f3.xml").write_text(bomb)
    out = import_source(tmp_path / "home", src)
    assert (out.imported, out.classes, len(out.skipped)) == (2, {N: 1}, 2)
    assert [c.box for c in Catalogue(tmp_path / "home").cells()] == [(1, 2, 40, 50)]


def annotation(objects: dict[tuple[int, int, int, int], str]) -> str:
    rows = []
    for box, name in objects.items():
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        rows.append(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
    return f"<annotation>{''.join(rows)}</annotation>"


def test_import_keeps_what_is_marked_in_a_field_each_once(tmp_path: Path) -> None:
    src = tmp_path / "src"
    put_image(src / "images/f1.png", 1, (200, 200))
    (src / "annotations").mkdir()
    marks = {(10, 10, 60, 60): "WBC", (100, 10, 130, 40): "RBC", (150, 150, 160, 160): "Platelets"}
    (src / "annotations/f1.xml").write_text(annotation(marks))
    put_labels(
        src,
        [
            {"path": "images/f1.png", "kind": "field", "group": "g", "split": "val"},
            {"path": "images/f1.png", "kind": "box", "class": "eosinophil", "group": "g", "split": "val",
             "xmin": 12, "ymin": 12, "xmax": 62, "ymax": 62},
            {"path": "images/f1.png", "kind": "object", "class": "smudge", "group": "g", "split": "val",
             "xmin": 70, "ymin": 70, "xmax": 99, "ymax": 99},
        ],
    )  # fmt: skip
    out = import_source(tmp_path / "home", src)
    assert (out.imported, out.classes, out.skipped) == (2, {E: 1}, ())
    (field,) = Catalogue(tmp_path / "home").fields(split="val")
    assert field.objects == (
        MarkedObject((12, 12, 62, 62), ObjectKind.CELL),  # typed by the label file, and marked once
        MarkedObject((70, 70, 99, 99), ObjectKind.SMUDGE),
        MarkedObject((100, 10, 130, 40), ObjectKind.RED_CELL),
        MarkedObject((150, 150, 160, 160), ObjectKind.PLATELET),
    )


@pytest.mark.parametrize(
    ("marks", "complete"),
    [
        ({(10, 10, 60, 60): "WBC", (100, 10, 130, 40): "RBC"}, True),
        ({(100, 10, 130, 40): "RBC"}, True),
        ({}, False),  # nobody has looked
        ({(10, 10, 60, 60): "WBC", (100, 10, 130, 40): "dragon"}, False),  # what was left out may be a white cell
        ({(10, 10, 60, 60): "WBC", (40, 40, 40, 40): "WBC"}, False),
    ],
)
def test_import_voc_knows_which_fields_are_marked_completely(
    tmp_path: Path, marks: dict[tuple[int, int, int, int], str], complete: bool
) -> None:
    put_image(tmp_path / "src/f1.png", 1, (200, 200))
    (tmp_path / "src/f1.xml").write_text(annotation(marks))
    import_source(tmp_path / "home", tmp_path / "src")
    (field,) = Catalogue(tmp_path / "home").fields()
    assert field.complete is complete


@pytest.mark.parametrize(
    ("boxes", "complete"),
    [([(5, 5, 50, 60)], True), ([], False), ([(5, 5, 50, 60), (90, 5, 500, 60)], False), ([(50, 5, 5, 60)], False)],
)
def test_import_csv_knows_which_fields_are_marked_completely(
    tmp_path: Path, boxes: list[tuple[int, int, int, int]], complete: bool
) -> None:
    put_image(tmp_path / "src/f.png", 2, (200, 100))
    rows: list[dict[str, object]] = [{"path": "f.png", "kind": "field", "group": "f1"}]
    rows += [
        {"path": "f.png", "kind": "box", "class": "eosinophil", "group": "f1",
         "xmin": box[0], "ymin": box[1], "xmax": box[2], "ymax": box[3]}
        for box in boxes
    ]  # fmt: skip
    put_labels(tmp_path / "src", rows)
    import_source(tmp_path / "home", tmp_path / "src")
    (field,) = Catalogue(tmp_path / "home").fields()
    assert field.complete is complete


def test_import_of_objects_without_their_field_says_so(tmp_path: Path) -> None:
    put_image(tmp_path / "src/a.png", 1)
    put_labels(
        tmp_path / "src",
        [{"path": "a.png", "kind": "object", "class": "rbc", "xmin": 1, "ymin": 1, "xmax": 9, "ymax": 9}],
    )
    out = import_source(tmp_path / "home", tmp_path / "src")
    assert [one.reason for one in out.skipped] == ["an object's image has no row of its own (kind field)"]


def test_import_twice_changes_nothing(tmp_path: Path) -> None:
    put_image(tmp_path / "src/neutrophil/a.png", 1)
    first = import_source(tmp_path / "home", tmp_path / "src")
    assert import_source(tmp_path / "home", tmp_path / "src") == first
    assert len(Catalogue(tmp_path / "home").cells()) == 1


def test_import_unlabelled_folder_says_what_to_do(tmp_path: Path) -> None:
    put_image(tmp_path / "src/a.png", 1)
    with pytest.raises(NoLabelsError, match=r"labels\.csv"):
        import_source(tmp_path / "home", tmp_path / "src")


def test_import_csv_without_class_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,name\na,b\n")
    with pytest.raises(NoLabelsError, match="columns"):
        import_source(tmp_path / "home", tmp_path)


def test_import_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        import_source(tmp_path / "home", tmp_path, "tarot")
    with pytest.raises(NotFoundError):
        import_source(tmp_path / "home", tmp_path / "absent")
    with pytest.raises(DataInvalidError):
        import_source(tmp_path / "home", put_image(tmp_path / "x.png"))


def test_import_on_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        put_image(tmp_path / f"src/neutrophil/{seed}.png", seed)
    Catalogue(tmp_path / "home")
    real, calls = os.fdopen, []

    def full_on_the_third(handle: int, mode: str = "r") -> object:
        calls.append(handle)
        if len(calls) == 3:
            os.close(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, mode)

    monkeypatch.setattr(os, "fdopen", full_on_the_third)
    with pytest.raises(NoSpaceError):
        import_source(tmp_path / "home", tmp_path / "src")
    assert Catalogue(tmp_path / "home").cells() == []
    assert [p for p in (tmp_path / "home/images").rglob("*") if p.is_file()] == []
