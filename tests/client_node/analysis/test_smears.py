"""Which images make up which smear."""

import json
from pathlib import Path

import pytest

from client_node.analysis.smears import ImageKind, SmearKind, plan_smears
from shared.contracts.errors import NotFoundError, NothingToDoError
from tests.client_node.datasets.factories import put_image


def test_plan_a_folder_is_one_smear_and_size_tells_cells_from_fields(tmp_path: Path) -> None:
    for number in range(3):
        put_image(tmp_path / f"cells/{number}.png", number, (90, 92))
        put_image(tmp_path / f"fields/{number}.png", number, (640, 480))
    (tmp_path / "fields/broken.jpg").write_text("no image")
    (tmp_path / "cells/smear.json").write_text(json.dumps({"pseudo": True}))
    cells, fields = plan_smears([tmp_path / "cells", tmp_path / "fields"])
    assert ([image.kind for image in cells.images], cells.pseudo, cells.synthetic) == (
        [ImageKind.CELL] * 3,
        True,
        False,
    )
    assert [image.kind for image in fields.images] == [ImageKind.FIELD] * 4


def test_plan_a_column_splits_a_folder_and_states_kinds(tmp_path: Path) -> None:
    for number in range(3):
        put_image(tmp_path / f"{number}.png", number, (90, 92))
    (tmp_path / "smear.csv").write_text("path,smear,kind\n0.png,a,field\n1.png,b,cell\n2.png,b,\n../x.png,c,\n")
    plans = plan_smears([tmp_path])
    assert [(plan.name, [(i.path.name, i.kind.value) for i in plan.images]) for plan in plans] == [
        ("a", [("0.png", "field")]),
        ("b", [("1.png", "cell"), ("2.png", "cell")]),
    ]


def test_plan_loose_files_of_a_folder_are_one_smear(tmp_path: Path) -> None:
    files = [put_image(tmp_path / name, 1, (90, 90)) for name in ("a/1.png", "a/2.png", "b/3.png")]
    plans = plan_smears(files, SmearKind.FIELDS)
    assert [(plan.name, len(plan.images)) for plan in plans] == [("a", 2), ("b", 1)]
    assert plans[0].images[0].kind is ImageKind.FIELD


def test_plan_a_folder_of_folders_is_a_smear_each(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        put_image(tmp_path / name / "x.png", 1, (90, 90))
    assert [plan.name for plan in plan_smears([tmp_path])] == ["p1", "p2"]


def test_plan_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError):
        plan_smears([tmp_path])
    with pytest.raises(NotFoundError):
        plan_smears([tmp_path / "absent"])
