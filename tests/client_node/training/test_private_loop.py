"""DP-SGD of the cell model: what a unit's gradient is, what noise is added, what is drawn, and that it learns."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client_node.training import private_loop
from client_node.training.accounting import Noisy
from client_node.training.private_loop import learns, train_privately
from client_node.training.sources import MapSource
from shared.contracts.ontology import CellClass
from shared.contracts.training import Balance, Recipe
from shared.vision.model import CellModel, build

RECIPE = Recipe(
    classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE), input_size=64, balance=Balance.NONE,
    learning_rate=0.1, head_learning_rate=0.5,
)  # fmt: skip
COUNT = 24
LABELS = np.arange(COUNT, dtype=np.int64) % 2
ONE_EACH = [np.array([place], np.int64) for place in range(COUNT)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def maps() -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    random = np.random.default_rng(0)
    found = random.normal(0.0, 0.3, (COUNT, 1, 192, 2, 2))
    found[LABELS == 1, :, :96] += 1.0
    return found.astype(np.float16)


def _model() -> CellModel:
    return build(RECIPE.backbone, 2)


def _seeds(start: int = 1) -> Callable[[], int]:
    numbers = count(start)
    return lambda: next(numbers)


def _trained(
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
    noise: Noisy,
    *,
    clip: float = 1.0,
    units: list[np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None,
    recipe: Recipe = RECIPE,
    seed: int = 1,
) -> tuple[CellModel, dict[str, torch.Tensor]]:
    model = _model()
    before = model.trainable_state()
    train_privately(
        model, MapSource(maps), LABELS, units or ONE_EACH, recipe, noise, clip=clip, between=lambda: None,
        entropy=_seeds(seed),
    )  # fmt: skip
    return model, before


def test_only_head_and_norms_learn_and_nothing_is_left_behind(
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
) -> None:
    model, before = _trained(maps, Noisy(1.0, 0.5, 2))
    after = model.trainable_state()
    learnt = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert learnt == set(learns(model))
    assert {name for name in after if name.startswith("head.")} < learnt
    assert not any("conv" in name or name.startswith(("trunk.", "finder.")) for name in learnt)
    assert sum(after[name].numel() for name in learnt) < 0.02 * sum(value.numel() for value in after.values())
    assert not any(hasattr(value, "grad_sample") or hasattr(value, "summed_grad") for value in model.parameters())


def test_gradients_are_each_looks_own(maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> None:
    model = _model()
    problem = private_loop._problem(model)
    batch, labels = torch.from_numpy(maps[:5, 0]).float(), torch.from_numpy(LABELS[:5])
    found = problem.gradients(batch, labels, 0.05)
    for place in range(5):
        model.zero_grad()
        logits = model.head(model.features(batch[place : place + 1]))
        nn.functional.cross_entropy(logits, labels[place : place + 1], label_smoothing=0.05).backward()
        for name, value in problem.learning.items():
            assert value.grad is not None
            torch.testing.assert_close(found[name][place], value.grad, rtol=1e-3, atol=1e-6)


def _moved(model: CellModel, before: dict[str, torch.Tensor]) -> float:
    squares = [float((value - before[name]).square().sum()) for name, value in model.trainable_state().items()]
    return float(np.sqrt(sum(squares)))


def test_one_unit_moves_the_model_no_further_than_its_clip(
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 0.1, "head_learning_rate": 0.1})
    whole = [np.arange(COUNT, dtype=np.int64)]  # one patient of all cells: one step by at most rate × clip / units
    model, before = _trained(maps, Noisy(1e-9, 1.0, 1), clip=0.01, units=whole, recipe=recipe)
    assert _moved(model, before) == pytest.approx(0.1 * 0.01, rel=0.02)
    model, before = _trained(maps, Noisy(1e-9, 1.0, 1), clip=0.01, recipe=recipe)
    assert _moved(model, before) <= 0.1 * 0.01 * 1.02


def test_noise_has_the_stated_size_and_comes_without_any_unit(
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 0.1, "head_learning_rate": 0.1})
    noise, rate = 2.0, 1e-9  # nobody is drawn: all that moves the model is noise
    model, before = _trained(maps, Noisy(noise, rate, 1), clip=0.5, recipe=recipe)
    values = sum(value.numel() for value in learns(model).values())
    expected = 0.1 * noise * 0.5 / (rate * COUNT) * np.sqrt(values)
    assert _moved(model, before) == pytest.approx(expected, rel=0.05)


def test_every_run_has_noise_of_its_own_whatever_the_recipes_seed(
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
) -> None:
    heads = []
    for _ in range(2):
        model = _model()
        train_privately(
            model, MapSource(maps), LABELS, ONE_EACH, RECIPE, Noisy(1.0, 0.5, 1), clip=1.0, between=lambda: None
        )
        heads.append(model.head.weight.detach().clone())
    assert not torch.equal(*heads)


def test_it_learns_and_more_noise_learns_less(maps: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> None:
    right = []
    for noise in (0.01, 300.0):
        model, _ = _trained(maps, Noisy(noise, 1.0, 10))
        with torch.inference_mode():
            said = model.head(model.features(torch.from_numpy(maps[:, 0]).float())).argmax(1).numpy()
        right.append(float((said == LABELS).mean()))
    assert right[0] == 1.0
    assert right[1] < 1.0


def test_a_unit_of_many_cells_goes_through_in_parts(tmp_path: Path) -> None:
    units = [np.arange(100, dtype=np.int64), np.arange(100, 103, dtype=np.int64)]
    parts = [[len(unit) for unit in part] for part in private_loop._chunks([*units, *units[1:], *units[1:]])]
    assert parts == [[100], [3, 3, 3]]
