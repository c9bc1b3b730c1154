"""Choosing how a site's cells are shown to a model."""

import json
from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.model import load_model
from client_node.datasets.labelled import LabelledCell
from client_node.models.view import LEAST_CELLS, chosen_view, losses
from shared.contracts.ontology import CellClass
from shared.vision import colour
from shared.vision.colour import SiteView
from shared.vision.images import load_image
from shared.vision.preprocessing import Pixels, cell_crop
from tests.client_node.analysis.models import cell_image, make_model
from tests.client_node.models.dyed import IN_LAB, dyed, labelled, two_dye_model


def cells(folder: Path, count: int, *, fade: float) -> list[LabelledCell]:
    """Cells of all classes whose dye is weaker than the model knows it."""

    def faded(cls: CellClass, number: int) -> Pixels:
        pale = np.exp(fade * np.log((cell_image(cls, number).astype(float) + 1) / 256)) * 256 - 1
        return np.asarray(np.clip(pale, 0, 255), np.uint8)

    return labelled(folder, count, faded)


@pytest.fixture
def two_dyes(tmp_path: Path) -> Path:
    return two_dye_model(tmp_path / "two-dyes")


def density_of(some: list[LabelledCell]) -> colour.Density:
    found = colour.density(cell_crop(load_image(cell.path), None) for cell in some)
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "model")
    card = json.loads((folder / "card.json").read_text())
    known = cells(tmp_path / "known", 24, fade=1.0)
    card["calibration"]["density"] = density_of(known)
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_pale_stain_is_brought_to_what_the_model_learnt(folder: Path, tmp_path: Path) -> None:
    own = cells(tmp_path / "own", 32, fade=0.55)
    view = chosen_view(load_model(folder), own, pause=lambda: None)
    assert view.factors != (1.0, 1.0, 1.0)
    assert min(view.factors) > 1.0


def test_a_dye_moved_in_lab_is_moved_back(two_dyes: Path, tmp_path: Path) -> None:
    own = labelled(tmp_path / "own", 40, dyed(change=IN_LAB))
    view = chosen_view(load_model(two_dyes), own, pause=lambda: None)
    assert view.method == "reinhard"


def test_two_dyes_of_another_hue_are_turned_to_the_known_ones(two_dyes: Path, tmp_path: Path) -> None:
    own = labelled(tmp_path / "own", 40, dyed(((0.42, 0.75, 0.51), (0.05, 0.70, 0.71))))
    view = chosen_view(load_model(two_dyes), own, pause=lambda: None)
    assert view.method == "macenko"


def test_cells_that_fill_more_of_their_boxes_are_cut_wider(two_dyes: Path, tmp_path: Path) -> None:
    own = labelled(tmp_path / "own", 40, dyed(size=1.25))
    found = losses(load_model(two_dyes), own, pause=lambda: None)
    view = chosen_view(load_model(two_dyes), own, pause=lambda: None)
    assert view.surround == 1.25
    assert found[SiteView(surround=1.25)] < 0.5 * found[SiteView()]


def test_a_known_stain_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert chosen_view(load_model(folder), cells(tmp_path / "own", 32, fade=1.0), pause=lambda: None).plain


def test_too_few_cells_choose_nothing(folder: Path, tmp_path: Path) -> None:
    own = cells(tmp_path / "own", LEAST_CELLS - 1, fade=0.55)
    assert chosen_view(load_model(folder), own, pause=lambda: None).plain
