"""Local training on cached maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from client_node.training import loop
from client_node.training.augment import STRENGTHS, SURROUND
from client_node.training.loop import ABSENT_SHARE, Stepper, apart, predict, train
from client_node.training.sources import CropSource, MapSource
from shared.contracts.ontology import CellClass
from shared.contracts.training import Augmentation, Balance, Recipe
from shared.vision.calibration import balanced_loss
from shared.vision.model import CellModel, build

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short epochs, for what shows after any number of steps."""
    monkeypatch.setattr(loop, "STEPS_AN_EPOCH", 6)


@pytest.fixture
def model() -> CellModel:
    return build("tf_efficientnet_lite0", len(CLASSES))


def maps(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float16]]":
    random = np.random.default_rng(0)
    result = random.normal(0.0, 1.0, (count, 2, 192, 2, 2)).astype(np.float16)
    result[: count // 2] += 1.0
    return result


def recipe(**change: object) -> Recipe:
    return Recipe.model_validate({"classes": CLASSES, "local_epochs": 1, "batch_size": 8, **change})


def source(count: int) -> MapSource:
    return MapSource(maps(count))


def test_train_holds_back_what_it_says_of_absent_classes(model: CellModel) -> None:
    before = {name: value.numpy() for name, value in model.trainable_state().items()}
    labels = np.array([0] * 8 + [1] * 8)
    train(model, source(16), labels, recipe(), seed=1, between=lambda: None)
    after = {name: value.numpy() for name, value in model.trainable_state().items()}
    moved = np.abs(after["head.weight"] - before["head.weight"]).mean(axis=1)
    assert 0 < moved[2] < ABSENT_SHARE * 2 * min(moved[:2])
    logits, features = predict(model, source(16), between=lambda: None)
    assert logits.shape == (16, 3)
    assert features.shape == (16, 1280)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.usefixtures("few_steps")
def test_train_leaves_trunk_and_statistics_alone(model: CellModel) -> None:
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name not in model.trainable_state()}
    train(model, source(8), np.array([0] * 4 + [2] * 4), recipe(), seed=1, between=lambda: None)
    assert all(torch.equal(value, frozen[name]) for name, value in model.state_dict().items() if name in frozen)


def test_train_with_a_strong_proximal_term_stays_near(model: CellModel) -> None:
    start = model.trainable_state()
    labels = np.array([0] * 4 + [1] * 4)
    distances = []
    for mu in (0.0, 10.0):
        model.load_trainable(start)
        train(model, source(8), labels, recipe(proximal_mu=mu), seed=1, between=lambda: None)
        pairs = zip(start.values(), model.trainable_state().values(), strict=True)
        distances.append(sum(float(((a - b) ** 2).sum()) for a, b in pairs))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.usefixtures("few_steps")
def test_train_on_one_class_does_not_fail(model: CellModel) -> None:
    loss = train(model, source(4), np.array([1] * 4), recipe(), seed=1, between=lambda: None)
    assert np.isfinite(loss)


@pytest.mark.parametrize("balance", list(Balance))
def test_train_learns_with_every_balance_and_twice_alike(model: CellModel, balance: Balance) -> None:
    labels, start = np.array([0] * 8 + [1] * 8), model.trainable_state()
    results = []
    for _ in range(2):
        model.load_trainable(start)
        train(model, source(16), labels, recipe(balance=balance, ema=0.9), seed=3, between=lambda: None)
        results.append(model.trainable_state())
    assert all(torch.equal(results[0][name], results[1][name]) for name in start)
    logits, _ = predict(model, source(16), between=lambda: None)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.usefixtures("few_steps")
def test_training_of_the_whole_network_is_the_same_under_a_seed_alone() -> None:
    """Nothing frozen: every look is drawn anew from the crops."""
    side = round(32 * SURROUND)
    crops = np.random.default_rng(0).integers(0, 256, (6, side, side, 3)).astype(np.uint8)
    whole = build("tf_efficientnet_lite0", len(CLASSES), frozen_stages=0)
    start = whole.trainable_state()
    results = []
    for seed in (1, 1, 2):
        whole.load_trainable(start)
        looks = CropSource(crops, whole, 32, STRENGTHS[Augmentation.MILD])
        labels, asked = np.array([0, 1, 2] * 2), recipe(batch_size=4, frozen_stages=0)
        train(whole, looks, labels, asked, seed=seed, between=lambda: None)
        results.append(whole.trainable_state())
    assert all(torch.equal(results[0][name], results[1][name]) for name in start if not name.startswith("finder."))
    assert not any(torch.equal(results[0][name], results[2][name]) for name in start if "head." in name)
    assert not torch.equal(results[0]["head.weight"], start["head.weight"])


@pytest.mark.usefixtures("few_steps")
def test_train_moves_the_head_alone_at_first(model: CellModel) -> None:
    tail = [value.detach().clone() for value in model.tail.parameters()]
    head = model.head.weight.detach().clone()
    train(model, source(8), np.array([0] * 4 + [1] * 4), recipe(head_epochs=1), seed=1, between=lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(tail, model.tail.parameters(), strict=True))
    assert not torch.equal(head, model.head.weight)


@pytest.mark.usefixtures("few_steps")
def test_train_returns_the_best_epoch_and_stops_early(model: CellModel) -> None:
    heads, losses = [], iter([0.5, 0.3, 0.9, 0.8, 0.1])

    def validate(now: CellModel) -> float:
        heads.append(now.head.weight.detach().clone())
        return next(losses)

    asked = recipe(local_epochs=5, patience=2)
    train(
        model, source(8), np.array([0] * 3 + [1] * 3 + [2] * 2), asked, seed=1, between=lambda: None, validate=validate
    )
    assert len(heads) == 4
    assert torch.equal(model.head.weight, heads[1])


def test_balanced_loss_weighs_classes_alike() -> None:
    logits = np.array([[9.0, 0.0]] * 9 + [[9.0, 0.0]], np.float32)
    labels = np.array([0] * 9 + [1])
    assert balanced_loss(logits, labels) == pytest.approx(4.5, abs=0.01)


def stepped(scaler: torch.amp.GradScaler, losses: list[float]) -> list[torch.Tensor]:
    """Step a weight of 1 down ``loss × weight`` for each of ``losses``; return it after each."""
    tail, head = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([{"params": [tail]}, {"params": [head]}], lr=0.1)
    stepper = Stepper([tail, head], optimiser, scaler, steps=len(losses), head_steps=0)
    seen = []
    for loss in losses:
        stepper.step((tail + head).sum() * loss)
        seen.append(torch.cat([tail, head]).detach().clone())
    return seen


def test_steps_are_the_same_with_scaled_gradients() -> None:
    """Small gradients and such that are clipped."""
    plain = stepped(torch.amp.GradScaler("cpu", enabled=False), [0.5, 30.0, 0.1])
    scaled = stepped(torch.amp.GradScaler("cpu", init_scale=1024.0), [0.5, 30.0, 0.1])
    for one, other in zip(plain, scaled, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert len({float(one[0]) for one in plain}) == 3


def test_a_step_whose_scaled_gradients_overflow_is_left_out() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30)
    first, second = stepped(scaler, [1e20, 1e-3])
    assert torch.equal(first, torch.ones(2))
    assert scaler.get_scale() == pytest.approx(5e29)
    assert bool((second < 1.0).all())


def test_those_that_say_when_to_stop_are_whole_groups_of_the_training_cells() -> None:
    cells = [
        LabelledCell(f"{n:064d}", Path("x"), None, CLASSES[n % 2], "s", f"g{n // 2}", Origin.IMPORT, "s", Split.TRAIN)
        for n in range(400)
    ]
    taught, held = apart(cells)
    assert sorted(cell.hash for cell in [*taught, *held]) == [cell.hash for cell in cells]
    assert not {cell.group for cell in taught} & {cell.group for cell in held}
    assert 0.06 < len(held) / len(cells) < 0.2
    assert apart(list(reversed(cells)))[1] == list(reversed(held))
    assert apart(cells[:40]) == (cells[:40], [])  # too few to say anything
