"""The warm model of the trainer, and where it computes."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from client_node.training.model_store import ModelStore, get_tensors
from shared.contracts.errors import ConfigError, ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision import backbones
from shared.vision.device import DEVICE_VARIABLE
from shared.vision.model import build
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES

RECIPE = Recipe(classes=CLASSES, input_size=32)
BASE = base_sha256(backbones.get(RECIPE.backbone))
CPU = torch.device("cpu")


def test_the_model_stays_warm_and_the_device_is_asked_for_each_time() -> None:
    asked: list[torch.device] = []

    def device() -> torch.device:
        asked.append(CPU)
        return CPU

    store = ModelStore(device)
    first = store.model(RECIPE, BASE)
    assert not store.on_gpu
    store.release()
    assert store.model(RECIPE, BASE) is first
    assert store.model(RECIPE.model_copy(update={"frozen_stages": 5}), BASE) is not first
    assert len(asked) == 3


def test_the_device_is_the_sites_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore()
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    assert next(store.model(RECIPE, BASE).parameters()).device == CPU
    monkeypatch.setenv(DEVICE_VARIABLE, "abacus")
    with pytest.raises(ConfigError, match=DEVICE_VARIABLE):
        store.model(RECIPE, BASE)


def test_a_model_of_other_base_weights_is_refused() -> None:
    with pytest.raises(ModelInvalidError, match="base weights"):
        ModelStore(lambda: CPU).model(RECIPE, "0" * 64)


def test_tensors_of_a_model_in_the_memory_order_of_a_gpu_travel_whole() -> None:
    model = build(RECIPE.backbone, len(CLASSES))
    like = {name: value.numpy().astype(np.float16) for name, value in model.trainable_state().items()}
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    travelled = load(save(get_tensors(model, like)))
    for name, array in like.items():
        np.testing.assert_array_equal(travelled[name], array)
