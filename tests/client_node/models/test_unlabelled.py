"""A site without labels may bring its dye near, if it asks for it, and only where that clearly helps."""

import json
from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.model import load_model
from client_node.analysis.service import Analyser
from client_node.home import NodeHome
from client_node.models.trial import choose_without_labels, run_trial
from shared.contracts.errors import ConflictError, NotFoundError, UsageError
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratories, KnownLaboratory
from shared.vision.calibration import Adapter
from shared.vision.colour import SiteView
from shared.vision.dye import Reinhard
from shared.vision.known import known_space
from shared.vision.preprocessing import cell_crop
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import CLASSES
from tests.client_node.models.dyed import IN_LAB, dyed, two_dye_model


def make_home(path: Path, *, allowed: bool) -> NodeHome:
    """A node without labels, whose model carries the laboratory it learnt from."""
    home = NodeHome(path)
    home.path.mkdir()
    (home.path / "policy.toml").write_text(f"[analysis]\nview_without_labels = {str(allowed).lower()}\n")
    folder = two_dye_model(home.model("hv-1"), "hv-1")
    model = load_model(folder)
    crops = [cell_crop(dyed()(CLASSES[number % 4], 500 + number), None) for number in range(120)]
    features = np.concatenate([found.features for found in model.outputs(crops)])
    known = KnownLaboratories(laboratories=(KnownLaboratory(space=known_space(features)),))
    (folder / KNOWN_FILE).write_text(known.model_dump_json())
    home.current_model.write_text(json.dumps({"version": "hv-1", "installed_at": "2026-01-01T00:00:00Z"}))
    return home


def analysed(home: NodeHome, folder: Path, change: Reinhard | None) -> None:
    for smear in range(2):
        for number in range(20):
            image = dyed(change=change)(CLASSES[number % 4], 900 + 20 * smear + number)
            save(folder / f"s{smear}/{number:02d}.png", image)
    Analyser(home.path).analyze([folder])


def view_of(home: NodeHome) -> SiteView:
    return load_model(home.model("hv-1")).adapter.view


def test_a_strange_dye_is_brought_near_once_asked_for(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", allowed=True)
    analysed(home, tmp_path / "smears", IN_LAB)
    found = choose_without_labels(home)
    assert found.cells == 40
    assert found.distance is not None
    assert found.nearest is not None
    assert found.distance > 1.0 > found.nearest
    assert view_of(home) == found.view != SiteView()
    assert "changed towards theirs without labels" in load_model(home.model("hv-1")).compared
    assert "from now on" in found.text()
    run_trial(home, "hv-1", None)  # the next model, or this one again, chooses by the same smears
    assert view_of(home) == found.view


def test_a_known_dye_and_too_few_cells_change_nothing(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", allowed=True)
    assert choose_without_labels(home).distance is None
    analysed(home, tmp_path / "smears", None)
    found = choose_without_labels(home)
    assert found.distance is not None
    assert found.distance < 1.0
    assert view_of(home).plain


def test_it_is_off_unless_the_hospital_asks_for_it(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", allowed=False)
    analysed(home, tmp_path / "smears", IN_LAB)
    run_trial(home, "hv-1", None)
    assert view_of(home).plain
    with pytest.raises(UsageError, match=r"policy\.toml"):
        choose_without_labels(home)


def test_labels_have_the_last_word(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", allowed=True)
    (home.model("hv-1") / "adapter.json").write_text(Adapter(cells=40).model_dump_json())
    with pytest.raises(ConflictError, match="own labels"):
        choose_without_labels(home)
    home.current_model.unlink()
    with pytest.raises(NotFoundError):
        choose_without_labels(home)
