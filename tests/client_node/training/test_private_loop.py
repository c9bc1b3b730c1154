"""DP-SGD of the cell model: what a unit's gradient is, what noise is added, what is drawn, and that it learns."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client_node.training import private_loop
from client_node.training.accounting import Noisy
from client_node.training.private_loop import train_privately
from client_node.training.sources import MapSource
from shared.contracts.ontology import CellClass
from shared.contracts.training import Balance, Recipe
from shared.vision.model import CellModel, build

RECIPE = Recipe(
    classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE), input_size=64, balance=Balance.NONE,
    learning_rate=0.1, head_learning_rate=0.5,
)  # fmt: skip
COUNT = 24
HEAD = {"head.weight", "head.bias"}
Maps = np.ndarray[tuple[int, ...], np.dtype[np.float16]]
LABELS = np.arange(COUNT, dtype=np.int64) % 2
ONE_EACH = [np.array([place], np.int64) for place in range(COUNT)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def maps() -> Maps:
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
    maps: Maps,
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


def test_only_the_head_learns_and_nothing_is_left_behind(maps: Maps) -> None:
    model, before = _trained(maps, Noisy(1.0, 0.5, 2))
    after = model.trainable_state()
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == HEAD
    assert not any(hasattr(value, "grad_sample") or hasattr(value, "summed_grad") for value in model.parameters())


def test_gradients_are_each_looks_own() -> None:
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 7, generator=random), torch.randn(3, generator=random)
    inputs, labels = torch.randn(5, 7, generator=random), torch.tensor([0, 1, 2, 0, 1])
    found = private_loop.gradients(weight, bias, inputs, labels, 0.05)
    for place in range(5):
        own = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
        logits = nn.functional.linear(inputs[place : place + 1], *own)
        loss = nn.functional.cross_entropy(logits, labels[place : place + 1], label_smoothing=0.05)
        for mine, value in zip(found, torch.autograd.grad(loss, own), strict=True):
            torch.testing.assert_close(mine[place], value)


def _moved(model: CellModel, before: dict[str, torch.Tensor]) -> float:
    squares = [float((value - before[name]).square().sum()) for name, value in model.trainable_state().items()]
    return float(np.sqrt(sum(squares)))


def test_one_unit_moves_the_head_no_further_than_its_clip(maps: Maps) -> None:
    whole = [np.arange(COUNT, dtype=np.int64)]  # one patient of all cells, clipped: a step of the rate's own length
    for units in (whole, ONE_EACH):
        model, before = _trained(maps, Noisy(1e-9, 1.0, 1), clip=0.01, units=units)
        turned = model.head.weight.detach() - before["head.weight"]  # the bias is told for features that lie elsewhere
        assert 0.1 < float(turned.norm()) <= RECIPE.head_learning_rate * 10 * 1.001


def test_a_tail_that_overflows_for_one_cell_alone_does_not_show_whether_it_is_there(maps: Maps) -> None:
    marked, model = maps.copy(), _model()
    marked[0, :, 0] = 60_000.0
    with torch.no_grad():  # infinity times nothing, for the marked cell only
        next(part for part in model.tail.modules() if isinstance(part, nn.Conv2d)).weight[0, 0] = 1e36
        next(part for part in model.tail.modules() if isinstance(part, nn.BatchNorm2d)).weight[0] = 0.0
    source = MapSource(marked)
    with torch.inference_mode():
        raw = model.features(source.draw(np.arange(COUNT), np.random.default_rng(0)))
    assert [bool(row) for row in raw.isfinite().all(dim=1)] == [False, *[True] * (COUNT - 1)]
    seen = private_loop._features(model, source, _seeds(), lambda: None)
    assert seen.isfinite().all()
    sums = []
    for units in (ONE_EACH, ONE_EACH[1:]):
        optimiser = private_loop._optimiser(model, RECIPE, Noisy(1e-9, 1.0, 1), clip=0.01, units=COUNT)
        private_loop._fill(model, seen, torch.zeros(seen.shape[2]), LABELS, units, 0.05)
        optimiser.clip_and_accumulate()
        sums.append(torch.cat([_of(value, "summed_grad").ravel() for value in (model.head.weight, model.head.bias)]))
        optimiser.zero_grad()
    assert 0.0 < float((sums[0] - sums[1]).norm()) <= 0.01 * 1.001
    train_privately(
        model, source, LABELS, ONE_EACH, RECIPE, Noisy(1.0, 1.0, 2), clip=0.01, between=lambda: None, entropy=_seeds()
    )
    assert model.head.weight.isfinite().all()


def test_gradients_that_are_not_finite_count_as_nothing() -> None:
    model = _model()
    with torch.no_grad():
        model.head.weight[0] = 1e38
        model.head.weight[1] = -1e38  # as a centre may send it: the logits of any bright cell overflow
    seen = torch.full((2, 1, model.head.in_features), 0.0).half()
    seen[0] = 50_000.0
    private_loop._fill(model, seen, torch.zeros(seen.shape[2]), LABELS[:2], ONE_EACH[:2], 0.05)
    of_weight, of_bias = (_of(value, "grad_sample") for value in (model.head.weight, model.head.bias))
    assert of_weight.isfinite().all()
    assert not of_weight[0].any()
    assert of_bias[1].any()


def _of(value: torch.Tensor, name: str) -> torch.Tensor:
    """What Opacus hangs on a parameter."""
    found = getattr(value, name)
    assert isinstance(found, torch.Tensor)
    return found


def test_noise_has_the_stated_size_and_comes_without_any_unit(maps: Maps) -> None:
    noise, rate, clip = 2.0, 1e-9, 0.5  # nobody is drawn: all that moves the head is noise
    model, before = _trained(maps, Noisy(noise, rate, 1), clip=clip)
    turned = model.head.weight.detach() - before["head.weight"]
    expected = RECIPE.head_learning_rate * 10 / clip * noise * clip / (rate * COUNT)
    assert float(turned.std()) == pytest.approx(expected, rel=0.05)


def test_centre_is_the_mean_under_little_noise_and_nothing_under_much() -> None:
    seen = torch.full((4000, 1, 16), 0.5).half()
    found = private_loop._centre(seen, [np.array([place]) for place in range(4000)], seed=1)
    torch.testing.assert_close(found, torch.full((16,), 0.5), atol=0.05, rtol=0)
    assert not torch.equal(found, private_loop._centre(seen, [np.array([place]) for place in range(4000)], seed=2))
    few = [private_loop._centre(seen[:2], [np.array([0]), np.array([1])], seed=seed) for seed in range(10)]
    unshrunk = 8.0 * 16**0.5 / 2 * 16**0.5
    assert float(torch.stack(few).norm(dim=1).mean()) < 0.5 * unshrunk


def test_every_run_has_noise_of_its_own_whatever_the_recipes_seed(
    maps: Maps,
) -> None:
    heads = []
    for _ in range(2):
        model = _model()
        train_privately(
            model, MapSource(maps), LABELS, ONE_EACH, RECIPE, Noisy(1.0, 0.5, 1), clip=1.0, between=lambda: None
        )
        heads.append(model.head.weight.detach().clone())
    assert not torch.equal(*heads)


def test_it_learns_and_more_noise_learns_less(maps: Maps) -> None:
    right = []
    for noise in (0.01, 300.0):
        model, _ = _trained(maps, Noisy(noise, 1.0, 40))
        with torch.inference_mode():
            said = model.head(model.features(torch.from_numpy(maps[:, 0]).float())).argmax(1).numpy()
        right.append(float((said == LABELS).mean()))
    assert right[0] > 0.75 > right[1]  # 24 cells that hardly differ: by chance one in two


def test_a_unit_of_many_cells_goes_through_in_parts(tmp_path: Path) -> None:
    units = [np.arange(100, dtype=np.int64), np.arange(100, 103, dtype=np.int64)]
    parts = [[len(unit) for unit in part] for part in private_loop._chunks([*units, *units[1:], *units[1:]], 2)]
    assert parts == [[100], [3, 3, 3]]
