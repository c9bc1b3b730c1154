"""Training on a GPU: the same numbers twice, near those of the CPU, and nothing left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from client_node.training.service import TrainingService
from shared.contracts.training import EvaluateReply, EvaluateRequest, Recipe, TrainReply, TrainRequest
from shared.vision import backbones
from shared.vision.model import build
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES, RECIPE, make_home

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

LEFT = 64 << 20
"""Bytes that the libraries of CUDA keep for themselves; a model with its optimiser and batches takes far more."""
Arrays = dict[str, NDArray[np.generic]]
BASE = base_sha256(backbones.get(RECIPE.backbone))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("node") / "home")


def sent(recipe: Recipe) -> Arrays:
    state = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages).trainable_state()
    return {name: value.numpy().astype(np.float16) for name, value in state.items()}


def trained(service: TrainingService, recipe: Recipe) -> Arrays:
    request = TrainRequest(run_key="r", round=1, rounds=1, base_sha256=BASE, recipe=recipe, participants=2)
    reply, tensors = service.handle(request, sent(recipe))
    assert isinstance(reply, TrainReply), reply
    return dict(tensors)


@pytest.mark.parametrize("frozen", [None, 0])
def test_training_on_a_gpu_is_repeatable_and_leaves_it(home: Path, frozen: int | None) -> None:
    recipe = RECIPE.model_copy(update={"frozen_stages": frozen, "ema": 0.9})
    service = TrainingService(home, device=lambda: torch.device("cuda"))
    one, two = trained(service, recipe), trained(service, recipe)
    assert torch.cuda.memory_allocated() < LEFT
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


def test_evaluation_on_a_gpu_says_what_the_cpu_says(home: Path) -> None:
    request = EvaluateRequest(run_key="r", base_sha256=BASE, recipe=RECIPE, participants=2)
    update = trained(TrainingService(home, device=lambda: torch.device("cuda")), RECIPE)
    losses = []
    for service in (
        TrainingService(home, device=lambda: torch.device("cpu")),
        TrainingService(home, device=lambda: torch.device("cuda")),
    ):
        reply, _ = service.handle(request, update)
        assert isinstance(reply, EvaluateReply), reply
        losses.append(reply.candidate.loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-2)
