"""A site's own scale and shift of a model's channels."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared.contracts.errors import ModelInvalidError
from shared.vision.model import CellModel, build
from shared.vision.normalisation import normalisation_names, normalisation_of, wear
from shared.vision.weights import FOLDER_VARIABLE
from tests.shared.vision.test_backbones import ensure


@pytest.fixture
def model() -> CellModel:
    return build("tf_efficientnet_lite0", 3)


def maps(model: CellModel, count: int = 12, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        found: Tensor = model.trunk(torch.randn(count, 3, 64, 64, generator=generator) * 0.4 + 0.3)
        return found


def test_the_names_are_those_of_the_tails_normalisation_and_nothing_else(model: CellModel) -> None:
    names = normalisation_names(model)
    layers = [one for one in model.tail.modules() if isinstance(one, nn.BatchNorm2d)]
    assert len(names) == 2 * len(layers) > 0
    state = model.trainable_state()
    assert all(state[name].ndim == 1 for name in names)
    left = {name for name, value in state.items() if name.startswith("tail.") and value.ndim == 1}
    assert left == set(names)  # convolutions here have no shift of their own


def test_a_vision_transformer_has_some_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    ensure("deit_tiny_patch16_224", tmp_path)
    model = build("deit_tiny_patch16_224", 2, frozen_stages=11)
    assert {name.rpartition(".")[2] for name in normalisation_names(model)} == {"weight", "bias"}


def test_what_was_worn_can_be_taken_off_again(model: CellModel) -> None:
    before, seen = normalisation_of(model), maps(model)
    plain = model.features(seen)
    wear(model, {name: value * 0.5 for name, value in before.items()})
    assert not torch.allclose(model.features(seen), plain)
    wear(model, before)
    assert torch.equal(model.features(seen), plain)
    first = next(iter(before))
    with pytest.raises(ModelInvalidError):
        wear(model, {first: before[first]})
    with pytest.raises(ModelInvalidError):
        wear(model, {**before, first: before[first] * torch.nan})
    assert torch.equal(model.features(seen), plain)
