"""Choosing how a site's cells are shown to a model."""

import json
from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.model import load_model
from client_node.datasets.catalogue import LabelledCell, Origin
from client_node.datasets.splits import Split
from client_node.models.view import LEAST_CELLS, chosen_view
from shared.vision import colour
from shared.vision.preprocessing import cell_crop, load_image
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import CLASSES, cell_image, make_model


def cells(folder: Path, count: int, *, fade: float) -> list[LabelledCell]:
    """Cells of all classes whose dye is weaker than the model knows it."""
    found = []
    for number in range(count):
        cls = CLASSES[number % len(CLASSES)]
        pale = np.exp(fade * np.log((cell_image(cls, number).astype(float) + 1) / 256)) * 256 - 1
        path = save(folder / f"{number}.png", np.clip(pale, 0, 255).astype(np.uint8))
        found.append(LabelledCell(f"{number:064d}", path, None, cls, "s", f"g{number}", Origin.IMPORT, "s", Split.VAL))
    return found


def density_of(some: list[LabelledCell]) -> colour.Density:
    found = colour.density(cell_crop(load_image(cell.path), None) for cell in some)
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "model")
    card = json.loads((folder / "card.json").read_text())
    card["calibration"]["density"] = density_of(cells(tmp_path / "known", 24, fade=1.0))
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_pale_stain_is_brought_to_what_the_model_learnt(folder: Path, tmp_path: Path) -> None:
    own = cells(tmp_path / "own", 32, fade=0.55)
    view = chosen_view(load_model(folder), own, pause=lambda: None)
    assert view.factors != (1.0, 1.0, 1.0)
    assert min(view.factors) > 1.0


def test_a_known_stain_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert chosen_view(load_model(folder), cells(tmp_path / "own", 32, fade=1.0), pause=lambda: None).plain


def test_too_few_cells_choose_nothing(folder: Path, tmp_path: Path) -> None:
    own = cells(tmp_path / "own", LEAST_CELLS - 1, fade=0.55)
    assert chosen_view(load_model(folder), own, pause=lambda: None).plain
