"""What sections of the bench are made of, on cells and answers small enough to check by hand."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.detection import detect_white_cells
from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CellClass
from shared.vision import preprocessing
from tests.bench.model.dense import dense_field
from tests.bench.model.federated import skewed
from tests.bench.model.frozen import as_cut, cut_by
from tests.bench.model.ood import _chunks
from tests.bench.model.rows import area_row, figure, mean_recall

DATA = Path(os.environ.get("HEMATOVISION_DATA", Path(__file__).parents[4] / "shared" / "data"))


def cell(number: int, cls: CellClass) -> LabelledCell:
    return LabelledCell(f"{number:064d}", Path("x"), None, cls, "s", "g", Origin.IMPORT, "s", Split.TRAIN)


def test_skewed_cells_keep_one_in_eight_of_the_rare_ones() -> None:
    cells = [cell(number, cls) for number, cls in enumerate([CellClass.NEUTROPHIL, CellClass.BASOPHIL] * 16)]
    assert Counter(one.cls for one in skewed(cells)) == {CellClass.NEUTROPHIL: 16, CellClass.BASOPHIL: 2}


def test_white_balance_can_be_switched_off_for_a_while() -> None:
    image = np.full((90, 90, 3), (200, 150, 100), np.uint8)
    plain = preprocessing.cell_crop(image, None)
    with cut_by(as_cut):
        assert (preprocessing.cell_crop(image, None) == (200, 150, 100)).all()
    assert (preprocessing.cell_crop(image, None) == plain).all()
    assert not (plain == (200, 150, 100)).all()


def test_a_figure_of_all_cells_stands_within_its_interval() -> None:
    truth, said = np.array([0] * 30 + [1] * 10), np.array([0] * 27 + [1] * 3 + [1] * 5 + [0] * 5)
    row = figure("x", lambda some: mean_recall(truth[some], said[some]), 40, goal=0.6)
    assert row["value"] == pytest.approx((0.9 + 0.5) / 2)
    assert isinstance(row["low"], float)
    assert isinstance(row["high"], float)
    assert 0.5 < row["low"] < 0.7 < row["high"] < 0.9
    assert row["holds"] is True


def test_an_area_has_an_interval() -> None:
    row = area_row("x", np.arange(50.0), np.arange(25.0, 75.0))
    assert row["value"] == pytest.approx(0.87, abs=0.01)
    assert isinstance(row["low"], float)
    assert isinstance(row["high"], float)
    assert row["low"] < 0.87 < row["high"]


def test_chunks_hold_all_and_are_of_like_size() -> None:
    paths = [Path(str(number)) for number in range(53)]
    parts = _chunks(paths, 10)
    assert sorted(path for part in parts for path in part) == sorted(paths)
    assert {len(part) for part in parts} == {10, 11}


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "labels.csv").is_file(), reason="the real smears are not here")
def test_the_dense_field_of_real_cells_has_as_many_as_are_asked_for() -> None:
    field = dense_field(DATA)
    assert field.shape == (480, 640, 3)
    assert len(detect_white_cells(field)) >= 20
