"""Rounds in which a site's normalisation is its own: what stays, what is sent, and what the candidate is told to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_node.models.normalisation import OwnNormalisation
from client_node.training.local import LocalNormalisation
from client_node.training.service import TrainingService
from shared.contracts.privacy import Privacy, PrivacyKind
from shared.contracts.training import EvaluateReply, EvaluateRequest, OwnPart, Recipe, TrainReply, TrainRequest
from shared.vision import backbones
from shared.vision.model import build
from shared.vision.normalisation import normalisation_names, normalisation_of
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES, RECIPE, make_home

Arrays = dict[str, np.ndarray[Any, Any]]
BASE = base_sha256(backbones.get(RECIPE.backbone))
LOCAL = RECIPE.model_copy(update={"local_normalisation": True})
NAMES = normalisation_names(build(RECIPE.backbone, len(CLASSES)))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start() -> Arrays:
    return {name: value.numpy() for name, value in build(RECIPE.backbone, len(CLASSES)).trainable_state().items()}


def trained(home: Path, tensors: Arrays, number: int, recipe: Recipe = LOCAL, *, run: str = "run") -> Arrays:
    request = TrainRequest(run_key=run, round=number, rounds=3, base_sha256=BASE, recipe=recipe, participants=2)
    reply, update = TrainingService(home).handle(request, tensors)
    assert isinstance(reply, TrainReply), reply
    return update


def others(update: Arrays) -> Arrays:
    """The average with hospitals whose channels are scaled quite otherwise."""
    return {name: array * (0.2 if name in NAMES else 1.0) for name, array in update.items()}


def evaluated(home: Path, tensors: Arrays, recipe: Recipe = LOCAL) -> EvaluateReply:
    request = EvaluateRequest(run_key="run", base_sha256=BASE, recipe=recipe, participants=2)
    reply, _ = TrainingService(home).handle(request, tensors)
    assert isinstance(reply, EvaluateReply), reply
    return reply


def test_a_site_goes_on_with_its_own_and_sends_it_for_the_average(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=10, val=8, test=8)
    update = trained(home, start, 1)
    mine = OwnNormalisation(home, LOCAL, BASE).after("run")
    assert mine is not None
    assert set(mine) == set(NAMES)
    assert all(np.array_equal(update[name], mine[name]) for name in NAMES)  # what is sent is what was learnt
    assert any(not np.array_equal(start[name], mine[name]) for name in NAMES)

    average = others(update)
    still = LOCAL.model_copy(update={"learning_rate": 1e-9, "local_epochs": 1, "ema": 0.0, "weight_decay": 0.0})
    again = trained(home, average, 2, still)
    for name in NAMES:
        np.testing.assert_allclose(again[name], mine[name], atol=1e-4)  # not what came
    shared = trained(home, average, 2, still.model_copy(update={"local_normalisation": False}))
    for name in NAMES:
        np.testing.assert_allclose(shared[name], average[name], atol=1e-4)

    reply = evaluated(home, average)
    assert reply.own is not None
    assert OwnPart.NORMALISATION in reply.own_parts
    assert reply.candidate.accuracy < reply.own.accuracy
    assert reply.own.accuracy > 0.8
    without = evaluated(home, average, RECIPE)
    assert without.candidate == reply.candidate
    assert OwnPart.NORMALISATION not in without.own_parts


def test_a_new_run_begins_with_what_another_left_only_where_that_reads_better(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=10, val=1, test=1)
    update = trained(home, start, 1)
    still = LOCAL.model_copy(update={"learning_rate": 1e-9, "local_epochs": 1, "ema": 0.0, "weight_decay": 0.0})
    better = trained(home, others(update), 1, still, run="second")
    OwnNormalisation(home, LOCAL, BASE).keep("worse", 1, {name: others(update)[name] for name in NAMES})
    kept = trained(home, update, 1, still, run="third")
    for name in NAMES:
        np.testing.assert_allclose(better[name], update[name], atol=1e-4)
        np.testing.assert_allclose(kept[name], update[name], atol=1e-4)


@pytest.mark.parametrize("noised", [False, True])
def test_a_private_round_begins_with_its_own_runs_noised_rounds_alone(tmp_path: Path, noised: bool) -> None:
    """A centre may ask for a round without noise and then, under the same run key, for one with it."""
    privacy = Privacy(kind=PrivacyKind.DP_SGD, epsilon=8.0, delta=1e-5, clip=1.0)
    request = TrainRequest(
        run_key="run", round=2, rounds=3, base_sha256=BASE, recipe=LOCAL, participants=2, privacy=privacy
    )
    model = build(RECIPE.backbone, len(CLASSES))
    received = normalisation_of(model)
    left = {name: np.full(value.shape, 7.0, np.float32) for name, value in received.items()}
    OwnNormalisation(tmp_path, LOCAL, BASE).keep("run", 1, left, noised=noised)
    LocalNormalisation(tmp_path, request).put_on(model, lambda: 0.0)
    for name, value in normalisation_of(model).items():
        np.testing.assert_array_equal(value.numpy(), left[name] if noised else received[name].numpy())
    LocalNormalisation(tmp_path, request).keep(model)
    assert OwnNormalisation(tmp_path, LOCAL, BASE).before("run", 3, noised=True) is not None


def test_where_the_average_reads_as_well_it_stays(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=10, val=8, test=8)
    update = trained(home, start, 1)
    reply = evaluated(home, update)
    assert OwnPart.NORMALISATION not in reply.own_parts


def test_another_round_of_the_recipe_without_it_keeps_nothing(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=6, val=1, test=1)
    trained(home, start, 1, RECIPE.model_copy(update={"local_epochs": 1}))
    assert not (home / "training" / "normalisation").exists()
