"""Who holds which images in the demonstration."""

import csv
from pathlib import Path

import pytest

from deploy.demo.partition import COLUMNS, Row, assign, read_labels, share_out, write_import_folder
from deploy.demo.smears import FIELDS_PER_SMEAR, make_smears, set_aside
from shared.contracts.errors import DataInvalidError, NoLabelsError, UsageError
from shared.contracts.ontology import CellClass

CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "immature_granulocyte", "basophil")


def row(number: int, *, site: str, cls: str, kind: str = "cell", split: str = "train") -> Row:
    values = {"path": f"{site}/{cls}-{number}.jpg", "kind": kind, "class": cls, "site": site, "split": split}
    return dict.fromkeys(COLUMNS, "") | values | {"group": f"{site}-{cls}-{number // 2}"}


def two_sites() -> list[Row]:
    big = [row(n, site="big", cls=cls) for cls in CLASSES for n in range(120)]
    small = [row(n, site="small", cls="neutrophil") for n in range(20)]
    return big + small


def test_assign_gives_each_site_a_hospital_and_splits_the_largest() -> None:
    hospitals = assign(two_sites(), 3)
    assert [(h.id, h.site) for h in hospitals] == [
        ("hospital-a", "big"),
        ("hospital-b", "big"),
        ("hospital-c", "small"),
    ]
    assert sum(len(h.rows) for h in hospitals) == len(two_sites())


def test_assign_keeps_groups_whole_and_is_repeatable() -> None:
    first, second = assign(two_sites(), 3), assign(two_sites(), 3)
    assert [h.rows for h in first] == [h.rows for h in second]
    groups = [{r["group"] for r in h.rows} for h in first]
    assert not groups[0] & groups[1]


def test_share_out_skews_labels() -> None:
    shares = share_out([row(n, site="big", cls=cls) for cls in CLASSES for n in range(400)], 2)
    for position, cls in enumerate(sorted(CLASSES)):
        held = [sum(r["class"] == cls for r in part) for part in shares]
        assert 0.6 < held[position % 2] / sum(held) < 0.8


def test_assign_refuses_more_sites_than_hospitals() -> None:
    rows = [row(n, site=f"s{n}", cls="neutrophil") for n in range(4)]
    with pytest.raises(UsageError, match="--hospitals 4"):
        assign(rows, 3)


def make_images(rows: list[Row], data: Path) -> None:
    for r in rows:
        path = data / r["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_set_aside_takes_groups_out_of_training_only(tmp_path: Path) -> None:
    rows = [row(n, site="big", cls=cls) for cls in CLASSES for n in range(200)]
    rows += [row(n, site="big", cls="neutrophil", split="test") | {"group": f"t{n}"} for n in range(200)]
    make_images(rows, tmp_path)
    (hospital,) = assign(rows, 1)
    set_aside(hospital, tmp_path)
    assert not {r["group"] for r in hospital.rows} & {r["group"] for r in hospital.pool}
    assert {r["split"] for r in hospital.pool} == {"train"}
    assert sum(r["split"] == "test" for r in hospital.rows) == 200


def test_make_smears_hides_the_answer_in_file_names(tmp_path: Path) -> None:
    rows = [row(n, site="big", cls=cls) for cls in CLASSES for n in range(200)]
    make_images(rows, tmp_path / "data")
    (hospital,) = assign(rows, 1)
    set_aside(hospital, tmp_path / "data")
    smears = make_smears(hospital, data=tmp_path / "data", out=tmp_path / "smears")
    assert [s.folder.name for s in smears] == ["hospital-a-gallery-unremarkable", "hospital-a-gallery-left-shift"]
    assert smears[1].truth[CellClass.IMMATURE_GRANULOCYTE] == 6
    names = {p.stem for s in smears for p in s.folder.glob("*.jpg")}
    assert names == {f"{n:03d}" for n in range(40)}


def test_make_smears_uses_whole_fields_where_there_are_some(tmp_path: Path) -> None:
    rows = [row(n, site="f", cls="", kind="field") | {"group": f"g{n}", "path": f"f/{n}.jpg"} for n in range(200)]
    make_images(rows, tmp_path)
    (hospital,) = assign(rows, 1)
    set_aside(hospital, tmp_path)
    smears = make_smears(hospital, data=tmp_path, out=tmp_path / "smears")
    assert [len(list(s.folder.glob("*.jpg"))) for s in smears] == [FIELDS_PER_SMEAR, FIELDS_PER_SMEAR]


def test_set_aside_leaves_most_fields_for_training(tmp_path: Path) -> None:
    rows = [row(n, site="f", cls="", kind="field") | {"group": f"g{n}"} for n in range(40)]
    make_images(rows, tmp_path)
    (hospital,) = assign(rows, 1)
    set_aside(hospital, tmp_path)
    assert (len(hospital.rows), len(hospital.pool)) == (24, 16)


def test_read_labels_without_a_label_file(tmp_path: Path) -> None:
    with pytest.raises(NoLabelsError, match="holds no labels"):
        read_labels(tmp_path)


def test_read_labels_without_a_needed_column(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,kind\na.jpg,cell\n")
    with pytest.raises(DataInvalidError, match="class, group, split"):
        read_labels(tmp_path)


def test_read_labels_without_any_class(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,kind,class,group,split\na.jpg,cell,,g,train\n")
    with pytest.raises(NoLabelsError, match="no class"):
        read_labels(tmp_path)


def test_write_import_folder_links_images_and_lists_own_rows_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = [row(n, site="big", cls="neutrophil") for n in range(3)]
    make_images(rows, data)
    (hospital,) = assign(rows, 1)
    folder = write_import_folder(hospital, data=data, out=tmp_path / "out")
    with (folder / "labels.csv").open() as stream:
        assert list(csv.DictReader(stream)) == hospital.rows
    assert (folder / "big").resolve() == data / "big"


@pytest.mark.parametrize("path", ["", "gone/a.jpg", "../outside.jpg", "/etc/hostname", "labels.csv"])
def test_row_without_an_image_is_left_to_the_import_to_name(tmp_path: Path, path: str) -> None:
    data = tmp_path / "data"
    rows = [row(n, site="big", cls="neutrophil") for n in range(4)]
    make_images(rows, data)
    (data / "labels.csv").write_text("kept")
    bad = row(9, site="big", cls="neutrophil") | {"path": path, "group": "bad"}
    (hospital,) = assign([bad, *rows], 1)
    set_aside(hospital, data)
    assert bad not in hospital.pool
    folder = write_import_folder(hospital, data=data, out=tmp_path / "import")
    with (folder / "labels.csv").open(newline="") as stream:
        assert bad in list(csv.DictReader(stream))
    assert (data / "labels.csv").read_text() == "kept"


def test_label_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataInvalidError, match="UTF-8"):
        read_labels(tmp_path)
