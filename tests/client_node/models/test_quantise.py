"""The INT8 form of a model: made from the site's cells, kept if good, void when the model changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from client_node.analysis.model import load_model, read_card
from client_node.datasets.catalogue import Catalogue
from client_node.home import NodeHome
from client_node.models.quantise import compare, quantise_model, switch_precision
from shared.contracts.errors import NoLabelsError, NotFoundError
from shared.contracts.model_card import ModelCard
from shared.vision import backbones
from shared.vision.engine import OnnxEngine
from shared.vision.export import export_onnx
from shared.vision.images import load_image
from shared.vision.model import build
from shared.vision.precision import FACTS_FILE, INT8_FILE, ONNX_FILE, Precision, int8_facts
from shared.vision.preprocessing import cell_crop, to_input
from tests.client_node.analysis.models import install_model
from tests.client_node.training.site import CLASSES, RECIPE, make_home


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with cells and a real network whose head tells them apart by the nearest mean."""
    home = make_home(tmp_path_factory.mktemp("site"), train=12, val=20, test=0)
    folder = install_model(home)
    model = build(RECIPE.backbone, len(CLASSES))
    size, entry = RECIPE.input_size, backbones.get(RECIPE.backbone)
    export_onnx(model, size, folder / ONNX_FILE)
    cells = Catalogue(home).cells(split="train")
    inputs = [to_input(cell_crop(load_image(cell.path), cell.box), size, entry.mean, entry.std) for cell in cells]
    features = OnnxEngine(folder / ONNX_FILE, len(CLASSES)).run(np.stack(inputs)).features
    truths = np.array([CLASSES.index(cell.cls) for cell in cells])
    means = torch.from_numpy(np.stack([features[truths == place].mean(axis=0) for place in range(len(CLASSES))]))
    with torch.no_grad():
        model.head.weight.copy_(means)
        model.head.bias.copy_(-0.5 * (means**2).sum(dim=1))
    export_onnx(model, size, folder / ONNX_FILE)
    card = read_card(folder).model_copy(update={"recipe": RECIPE})
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))
    current = {"version": "test-1", "installed_at": "2026-01-01T00:00:00Z"}
    (home / "models/current.json").write_text(json.dumps(current))
    return home


@pytest.fixture(scope="module")
def good(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same hospital with an INT8 form that is kept."""
    home = Path(shutil.copytree(site, tmp_path_factory.mktemp("good") / "home"))
    assert quantise_model(NodeHome(home), least_speed_up=0.0, most_loss=1.0).kept
    return home


@pytest.fixture
def quantised(good: Path, tmp_path: Path) -> NodeHome:
    return NodeHome(Path(shutil.copytree(good, tmp_path / "quantised")))


@pytest.fixture
def home(site: Path, tmp_path: Path) -> NodeHome:
    return NodeHome(Path(shutil.copytree(site, tmp_path / "home")))


def test_quantise_keeps_a_good_int8_form_which_then_runs(home: NodeHome) -> None:
    folder = home.model("test-1")
    signed = (folder / ONNX_FILE).read_bytes()
    output = quantise_model(home, least_speed_up=0.0, most_loss=0.05)
    assert (output.kept, output.comparison.n, output.calibration_cells) == (True, 60, 36)
    assert output.comparison.accuracy_fp32 > 0.9
    assert output.bytes_int8 < 0.4 * output.bytes_fp32
    assert (folder / ONNX_FILE).read_bytes() == signed
    small, plain = load_model(folder), load_model(folder, precision=Precision.FP32)
    assert (small.engine.name, plain.engine.name) == ("onnxruntime-int8", "onnxruntime")
    assert (small.adapter.cells, plain.adapter.cells) == (60, 0)
    images = np.random.default_rng(0).normal(0, 0.5, (3, 3, 64, 64)).astype(np.float32)
    ours, theirs = small.engine.run(images), plain.engine.run(images)
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    likeness = (ours.features * theirs.features).sum() / np.linalg.norm(ours.features) / np.linalg.norm(theirs.features)
    assert 0.9 < likeness < 1.0 - 1e-6
    assert not (folder / ".trying-int8").exists()


def test_quantise_keeps_nothing_that_is_not_fast_enough(home: NodeHome) -> None:
    output = quantise_model(home, least_speed_up=100.0, most_loss=1.0)
    assert not output.kept
    assert "100.00 are asked for" in output.reason
    left = {file.name for file in home.model("test-1").iterdir()}
    assert left == {"card.json", ONNX_FILE}


def test_a_changed_model_makes_its_int8_form_void(quantised: NodeHome) -> None:
    folder = quantised.model("test-1")
    assert int8_facts(folder) is not None
    export_onnx(build(RECIPE.backbone, len(CLASSES), seed=1), RECIPE.input_size, folder / ONNX_FILE)
    assert int8_facts(folder) is None
    assert load_model(folder).engine.name == "onnxruntime"
    with pytest.raises(NotFoundError, match="model quantise"):
        switch_precision(quantised, Precision.INT8)


def test_a_damaged_int8_form_does_not_run(quantised: NodeHome) -> None:
    folder = quantised.model("test-1")
    assert load_model(folder).engine.name == "onnxruntime-int8"
    (folder / INT8_FILE).write_bytes(b"damaged")
    assert load_model(folder).engine.name == "onnxruntime"


def test_switch_precision_goes_back_and_forth(home: NodeHome, quantised: NodeHome) -> None:
    folder = quantised.model("test-1")
    assert switch_precision(home, Precision.FP32) is Precision.FP32
    assert switch_precision(quantised, Precision.FP32) is Precision.FP32
    assert load_model(folder).engine.name == "onnxruntime"
    assert switch_precision(quantised, Precision.INT8) is Precision.INT8
    assert load_model(folder).engine.name == "onnxruntime-int8"


def test_quantise_without_labels_or_model_says_what_to_do(home: NodeHome, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not on this node"):
        quantise_model(home, "../other")
    with pytest.raises(NotFoundError, match="No model"):
        quantise_model(NodeHome(tmp_path))
    bare = make_home(tmp_path / "bare", train=12, val=2)
    shutil.copytree(home.models, bare / "models")
    with pytest.raises(NoLabelsError, match="50 validation cells"):
        quantise_model(NodeHome(bare))
    assert not (bare / "models/test-1" / FACTS_FILE).exists()
    empty = make_home(tmp_path / "empty", train=1)
    shutil.copytree(home.models, empty / "models")
    with pytest.raises(NoLabelsError, match="training cells"):
        quantise_model(NodeHome(empty))


def test_compare_counts_pairs() -> None:
    fp32 = np.array([True] * 90 + [False] * 10)
    int8 = np.array([False] * 6 + [True] * 86 + [False] * 8)
    found = compare(fp32, int8, (4e-3, 2e-3))
    assert (found.n, found.lost, found.won, found.loss, found.speed_up) == (100, 6, 2, 0.04, 2.0)
    assert found.p_value == pytest.approx(0.2890625)  # two-sided binomial of 2 in 8


def test_card_is_not_touched(home: NodeHome, quantised: NodeHome) -> None:
    before, after = ((one.model("test-1") / "card.json").read_text() for one in (home, quantised))
    assert ModelCard.model_validate_json(after) == ModelCard.model_validate_json(before)
