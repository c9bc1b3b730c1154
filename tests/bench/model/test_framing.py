"""Cells framed by their own size, or all alike, on a drawn image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CellClass
from tests.bench.model.framing import all_alike, by_own_size, usual_side
from tests.client_node.analysis.factories import draw_field


def cell(path: Path, box: tuple[int, int, int, int] | None) -> LabelledCell:
    return LabelledCell(
        "0" * 64, path, box, CellClass.NEUTROPHIL, "s", "g", Origin.IMPORT, "s", Split.TRAIN
    )  # fmt: skip


def test_boxes_become_alike_about_their_own_centres() -> None:
    cells = [cell(Path(), (0, 0, 40, 20)), cell(Path(), (100, 100, 160, 180)), cell(Path(), None)]
    side = usual_side(cells)
    assert side == 60
    assert [one.box for one in all_alike(cells, side)] == [(-10, -20, 50, 40), (100, 110, 160, 170), None]


def test_the_cell_in_the_middle_gets_a_box_of_its_own_size(tmp_path: Path) -> None:
    image, (drawn,) = draw_field(0, [(CellClass.NEUTROPHIL, 320, 240)])
    middle = image[60:420, 140:500]  # a picture of 360 × 360, the cell in its middle
    Image.fromarray(middle).save(tmp_path / "cell.png")
    (found,) = by_own_size([cell(tmp_path / "cell.png", None)])
    assert found.box is not None
    own = np.array(drawn) - [140, 60, 140, 60]
    assert np.abs(np.array(found.box) - own).max() <= 0.3 * (own[2] - own[0])


def test_a_box_that_is_there_stays_and_an_empty_image_has_none(tmp_path: Path) -> None:
    boxed = cell(tmp_path / "none.png", (1, 2, 3, 4))
    Image.fromarray(np.full((90, 90, 3), 235, np.uint8)).save(tmp_path / "empty.png")
    empty = cell(tmp_path / "empty.png", None)
    assert by_own_size([boxed, empty]) == [boxed, replace(empty, box=None)]


@pytest.mark.parametrize("side", [10.0, 33.0])
def test_an_alike_box_has_the_asked_side(side: float) -> None:
    (one,) = all_alike([cell(Path(), (7, 9, 30, 31))], side)
    assert one.box is not None
    assert one.box[2] - one.box[0] == pytest.approx(side, abs=1)
