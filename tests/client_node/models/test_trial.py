"""A model is tried, quantised and compared on cells as analysis shows them at the site, not otherwise."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client_node.analysis.fields import find_cells
from client_node.analysis.model import load_model
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Kind, NewItem
from client_node.datasets.splits import Split
from client_node.home import NodeHome
from client_node.models.quantise import calibration_inputs
from client_node.models.trial import run_trial
from client_node.training.site import current_metrics
from shared.contracts.objects import ObjectKind
from shared.vision.images import load_image
from tests.client_node.analysis.models import CLASSES, make_model
from tests.client_node.analysis.test_compare import add_fields
from tests.client_node.models.dyed import IN_LAB, dyed, two_dye_model


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    """A site of another dye than its model learnt."""
    home = NodeHome(tmp_path / "home")
    home.path.mkdir()
    (home.path / "policy.toml").write_text("[training]\n")
    drawn = dyed(change=IN_LAB)
    with Catalogue(home.path).writing() as writer:
        for number in range(120):
            cls, split = CLASSES[number % len(CLASSES)], (Split.TRAIN, Split.VAL, Split.TEST)[number // 40]
            out = io.BytesIO()
            Image.fromarray(drawn(cls, number)).save(out, "PNG")
            sha256 = writer.put_image(out.getvalue()).sha256
            writer.add([NewItem(sha256, Kind.CELL, None, cls, "own", "a", f"g{number}", split)])
    two_dye_model(home.model("hv-1"), "hv-1")
    home.current_model.write_text(json.dumps({"version": "hv-1", "installed_at": "2026-01-01T00:00:00Z"}))
    return home


def test_a_trial_judges_in_the_view_that_analysis_will_use(home: NodeHome) -> None:
    plain = current_metrics(home.path, "test")
    trial = run_trial(home, "hv-1", None)
    model = load_model(home.model("hv-1"))
    assert model.adapter.view.method == "reinhard"
    assert plain is not None
    assert trial.accuracy is not None
    assert trial.accuracy > 0.9 > 0.6 > plain.accuracy
    assert (model.adapter.cells, model.adapter.right) == (40, round(40 * trial.accuracy))
    seen = current_metrics(home.path, "test")
    assert seen is not None
    assert seen.accuracy > 0.9


def test_the_model_in_use_is_judged_in_the_view_it_has(home: NodeHome) -> None:
    run_trial(home, "hv-1", None)
    two_dye_model(home.model("hv-2"), "hv-2")
    trial = run_trial(home, "hv-2", "hv-1")
    assert trial.accuracy == trial.current_accuracy


def test_a_finder_that_fails_on_the_sites_marked_fields_is_not_used_here(home: NodeHome) -> None:
    add_fields(home.path, 10)
    for version, kind, well in (("hv-2", ObjectKind.CELL, True), ("hv-3", ObjectKind.ARTEFACT, False)):
        make_model(home.model(version), version, finds=True, kind=kind)
        run_trial(home, version, None)
        model = load_model(home.model(version))
        assert (model.card.finds, model.adapter.finder, model.finds) == (True, well, well)
        field = load_image(Catalogue(home.path).fields()[0].path)
        assert len(find_cells(model, field).cells) == 2
    run_trial(home, "hv-1", None)
    assert load_model(home.model("hv-1")).adapter.finder is None  # its finder was never trained


def test_a_site_with_few_marked_fields_goes_by_the_card(home: NodeHome) -> None:
    add_fields(home.path, 2)
    make_model(home.model("hv-2"), "hv-2", finds=True, kind=ObjectKind.ARTEFACT)
    run_trial(home, "hv-2", None)
    assert load_model(home.model("hv-2")).adapter.finder is None


def test_int8_ranges_are_of_cells_in_the_sites_view(home: NodeHome) -> None:
    plain = calibration_inputs(home, load_model(home.model("hv-1")))
    run_trial(home, "hv-1", None)
    model = load_model(home.model("hv-1"))
    inputs = calibration_inputs(home, model)
    assert not np.allclose(inputs, plain, atol=0.02)
    by_hash = {cell.hash: cell for cell in Catalogue(home.path).cells(split="train", classes=model.classes)}
    shown = np.stack(list(model.inputs([model.cut(load_image(cell.path), None) for cell in by_hash.values()])))
    assert sorted(inputs.sum(axis=(1, 2, 3)).tolist()) == pytest.approx(sorted(shown.sum(axis=(1, 2, 3)).tolist()))
