"""Local training on cached maps."""

import numpy as np
import pytest
import torch

from client_node.training.loop import ABSENT_SHARE, predict, train
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision.model import CellModel, build

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE)


@pytest.fixture
def model() -> CellModel:
    return build("tf_efficientnet_lite0", len(CLASSES))


def maps(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float16]]":
    random = np.random.default_rng(0)
    result = random.normal(0.0, 1.0, (count, 2, 192, 2, 2)).astype(np.float16)
    result[: count // 2] += 1.0
    return result


def recipe(**change: float) -> Recipe:
    return Recipe.model_validate({"classes": CLASSES, "local_epochs": 1, "batch_size": 8, **change})


def test_train_holds_back_what_it_says_of_absent_classes(model: CellModel) -> None:
    before = {name: value.numpy() for name, value in model.trainable_state().items()}
    labels = np.array([0] * 8 + [1] * 8)
    train(model, maps(16), labels, recipe(), seed=1, between=lambda: None)
    after = {name: value.numpy() for name, value in model.trainable_state().items()}
    moved = np.abs(after["head.weight"] - before["head.weight"]).mean(axis=1)
    assert 0 < moved[2] < ABSENT_SHARE * 2 * min(moved[:2])
    logits, features = predict(model, maps(16)[:, 0], between=lambda: None)
    assert logits.shape == (16, 3)
    assert features.shape == (16, 1280)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


def test_train_leaves_trunk_and_statistics_alone(model: CellModel) -> None:
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name not in model.trainable_state()}
    train(model, maps(8), np.array([0] * 4 + [2] * 4), recipe(), seed=1, between=lambda: None)
    assert all(torch.equal(value, frozen[name]) for name, value in model.state_dict().items() if name in frozen)


def test_train_with_a_strong_proximal_term_stays_near(model: CellModel) -> None:
    start = model.trainable_state()
    labels = np.array([0] * 4 + [1] * 4)
    distances = []
    for mu in (0.0, 10.0):
        model.load_trainable(start)
        train(model, maps(8), labels, recipe(proximal_mu=mu), seed=1, between=lambda: None)
        pairs = zip(start.values(), model.trainable_state().values(), strict=True)
        distances.append(sum(float(((a - b) ** 2).sum()) for a, b in pairs))
    assert distances[1] < 0.5 * distances[0]


def test_train_on_one_class_does_not_fail(model: CellModel) -> None:
    loss = train(model, maps(4), np.array([1] * 4), recipe(), seed=1, between=lambda: None)
    assert np.isfinite(loss)
