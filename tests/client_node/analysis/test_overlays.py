"""What the model saw in doubtful cells is kept beside a flagged smear, and leaves with its case."""

import io
from pathlib import Path

import pytest
from PIL import Image

from client_node.analysis.model import load_model
from client_node.analysis.overlays import Overlays
from client_node.analysis.service import Analyser
from client_node.cases.bundle import images, overlay_name
from shared.contracts.analysis import Flag, FlagEvidence, Severity, Smear
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, install_model

N, L, E = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL
FLAG = Flag(id="eosinophilia", severity=Severity.ROUTINE, evidence=FlagEvidence(text="Two of three"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    install_model(tmp_path / "home")
    return tmp_path / "home"


def _flagged(home: Path, tmp_path: Path, *, kind: str = "morphology") -> Smear:
    """Return an analysed smear of three cells, of which the first two are doubtful."""
    for number, cls in enumerate((N, L, E)):
        save(tmp_path / f"smear/{number}.png", cell_image(cls, 900 + number))
    (smear,) = Analyser(home).analyze([tmp_path / "smear"]).smears
    cells = tuple(
        cell.model_copy(update={"prediction_set": (N, L) if number < 2 else (cell.cls,), "ood_score": 0.1})
        for number, cell in enumerate(smear.cells)
    )
    return smear.model_copy(update={"cells": cells, "flags": (FLAG.model_copy(update={"kind": kind}),)})


def _kept(home: Path, smear: Smear) -> list[str]:
    return sorted(file.stem for file in (home / "smears" / smear.id / "heat").glob("*.png"))


def test_doubtful_cells_of_a_flagged_smear_get_an_overlay(home: Path, tmp_path: Path) -> None:
    smear, model = _flagged(home, tmp_path), load_model(home / "models/test-1")
    assert Overlays(home).keep(smear, model) == 2
    assert _kept(home, smear) == [cell.id for cell in smear.cells[:2]]
    sent = {
        name: plain for name, _, _, plain in images(home / "smears" / smear.id, range(len(smear.fields)), smear.cells)
    }
    assert {name for name in sent if name.startswith("heat-")} == {overlay_name(cell.id) for cell in smear.cells[:2]}
    with Image.open(io.BytesIO(sent[overlay_name(smear.cells[0].id)])) as picture:
        assert (picture.size, picture.info) == ((192, 192), {})


def test_no_more_than_the_policy_says_and_none_for_quality_alone(home: Path, tmp_path: Path) -> None:
    smear, model = _flagged(home, tmp_path), load_model(home / "models/test-1")
    policy = home / "policy.toml"
    policy.write_text("[analysis]\noverlays = 1\n")
    assert Overlays(home).keep(smear, model) == 1
    policy.write_text("[analysis]\noverlays = 0\n")
    assert Overlays(home).keep(smear, model) == 0
    policy.unlink()
    assert Overlays(home).keep(_flagged(home, tmp_path, kind="quality"), model) == 0


def test_a_damaged_model_file_costs_the_overlays_and_nothing_else(home: Path, tmp_path: Path) -> None:
    smear, model = _flagged(home, tmp_path), load_model(home / "models/test-1")
    (home / "models/test-1/model.onnx").write_bytes(b"no model")
    assert Overlays(home).keep(smear, model) == 0
    assert _kept(home, smear) == []
