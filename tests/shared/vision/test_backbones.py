"""Every backbone of the registry: built, cut anywhere, trained a step, exported and loaded again."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shared.contracts.errors import ModelInvalidError, NotFoundError, WeightsMissingError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision import backbones, finder
from shared.vision.engine import DELTA_FILE, ONNX_FILE, load_engine
from shared.vision.export import export_onnx
from shared.vision.model import CellModel, build
from shared.vision.torch_engine import load_model
from shared.vision.trunk import Trunk
from shared.vision.weights import FOLDER_VARIABLE, add_weights, available, base_model, import_timm

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)
SIZE = 64
PAGE = Path(__file__).resolve().parents[3] / "docs" / "backbones.md"


def random_state(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = import_timm().create_model(name, pretrained=False)
    return {key: value.contiguous() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(autouse=True)
def weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))


def ensure(name: str, tmp_path: Path) -> None:
    """Where no package holds the weights, give the installation a file of random ones."""
    if available(backbones.get(name)) is None:
        file = tmp_path / f"{name}.safetensors"
        save_file(random_state(name), file)
        add_weights(backbones.get(name), file, sha256(file.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", backbones.names())
def test_backbone_learns_one_step_and_survives_its_export(name: str, tmp_path: Path) -> None:
    ensure(name, tmp_path)
    recipe = Recipe(classes=CLASSES, backbone=name, input_size=SIZE)
    entry, model = backbones.get(name), build(name, len(CLASSES))
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (3, 3, SIZE, SIZE)).astype(np.float32))
    with torch.inference_mode():
        maps = model.tail(model.trunk(images))
        logits, features, objects = model(images)
    assert maps.shape[:2] == features.shape == (3, entry.feature_size)
    assert objects.shape == (3, finder.OUTPUTS)

    frozen = {key: value.clone() for key, value in model.trunk.state_dict().items()}
    start = model.trainable_state()
    optimiser = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(images)[0], torch.tensor([0, 1, 0])).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert all(torch.equal(value, frozen[key]) for key, value in model.trunk.state_dict().items())
    learnt = model.trainable_state()
    assert any(not torch.equal(learnt[key], start[key]) for key in start if key.startswith("tail."))
    assert not torch.equal(learnt["head.weight"], start["head.weight"])

    save_file(learnt, tmp_path / DELTA_FILE)
    again = load_model(tmp_path / DELTA_FILE, recipe)
    assert export_onnx(again, SIZE, tmp_path / ONNX_FILE) < 1e-3
    outputs = load_engine(tmp_path, recipe).run(images.numpy())
    with torch.inference_mode():
        expected = model(images)
    for found, wanted in zip(outputs, expected, strict=True):
        assert np.abs(found - wanted.numpy()).max() < 2e-3 * max(1.0, float(wanted.abs().max()))
    assert float(logits.std()) > 0

    with torch.inference_mode():
        cut = model.trunk(images).numpy()
    found_maps = Trunk(model, SIZE).run(images.numpy()).astype(np.float32)
    assert found_maps.shape == cut.shape
    assert cut.ndim == 4
    assert np.abs(found_maps - cut).max() < 5e-3 * max(1.0, float(np.abs(cut).max()))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet50", "densenet121", "deit_tiny_patch16_224"])
def test_cut_may_lie_anywhere_and_changes_nothing(name: str, tmp_path: Path) -> None:
    ensure(name, tmp_path)
    entry = backbones.get(name)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    results, sizes = [], []
    for frozen in (0, 1, entry.stages):
        model = CellModel(entry, 2, frozen_stages=frozen)
        with torch.inference_mode():
            results.append(model(images)[1])
        sizes.append(sum(value.numel() for value in model.trainable_state().values()))
        assert (next(model.trunk.parameters(), None) is None) is (frozen == 0)
    assert torch.allclose(results[0], results[1], atol=1e-5)
    assert torch.allclose(results[0], results[2], atol=1e-5)
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(ModelInvalidError, match="freeze no more"):
        CellModel(entry, 2, frozen_stages=entry.stages + 1)


def test_weights_of_a_file_need_their_checksum_and_shape(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    entry = backbones.get("mobilenetv3_large_100")
    with pytest.raises(WeightsMissingError, match="weights add mobilenetv3_large_100"):
        base_model(entry)
    with pytest.raises(NotFoundError):
        add_weights(entry, tmp_path / "none.pth", "0" * 64)
    state = random_state(entry.name)
    file = tmp_path / "state.pth"
    torch.save(state, file)
    with pytest.raises(ModelInvalidError, match="another SHA-256"):
        add_weights(entry, file, "0" * 64)
    assert not (tmp_path / "own").exists()
    target = add_weights(entry, file, sha256(file.read_bytes()).hexdigest())
    assert available(entry) == "folder"
    assert torch.equal(base_model(entry).state_dict()["conv_stem.weight"], state["conv_stem.weight"])
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(ModelInvalidError, match="add them again"):
        base_model(entry)


@pytest.mark.parametrize("damage", ["fewer", "shape", "stranger", "no state", "no file of tensors"])
def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    entry = backbones.get("mobilenetv3_large_100")
    state = random_state(entry.name)
    file = tmp_path / "state.pth"
    if damage == "fewer":
        del state["bn1.weight"]
    elif damage == "shape":
        state["bn1.weight"] = torch.ones(3)
    elif damage == "stranger":
        state["other.weight"] = torch.ones(3)
    torch.save({"state": 1} if damage == "no state" else state, file)
    if damage == "no file of tensors":
        file.write_bytes(b"x" * 100)
    with pytest.raises(ModelInvalidError):
        add_weights(entry, file, sha256(file.read_bytes()).hexdigest())
    assert not (tmp_path / "own").exists()


def test_weights_without_their_own_classifier_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    entry = backbones.get("deit_tiny_patch16_224")
    state = {key: value for key, value in random_state(entry.name).items() if not key.startswith("head.")}
    save_file(state, tmp_path / "state.safetensors")
    add_weights(
        entry, tmp_path / "state.safetensors", sha256((tmp_path / "state.safetensors").read_bytes()).hexdigest()
    )
    assert torch.equal(base_model(entry).state_dict()["norm.weight"], state["norm.weight"])


def test_page_names_every_backbone_as_it_is() -> None:
    rows = {line.split("|")[1].strip(): line for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert set(rows) == {f"`{name}`" for name in backbones.names()}
    for name in backbones.names():
        entry = backbones.get(name)
        cells = [cell.strip() for cell in rows[f"`{name}`"].split("|")[2:-1]]
        place = f"`{entry.package}`" if entry.package else f"file, or `{entry.hub}`"
        launch = f" ({entry.launch_stages})" if entry.launch_stages is not None else ""
        frozen = f"{entry.trunk_blocks}{launch} of {entry.stages}"
        assert cells == [str(entry.input_size), str(entry.feature_size), frozen, place, entry.licence]
