"""Warm-up on unlabelled cells: what learns, what is drawn, and whether a gain is told from none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.training.sources import MapSource
from shared.contracts.errors import DependencyMissingError
from shared.contracts.training import Recipe
from tests.bench.model.train import CLASSES
from tests.bench.model.warmup import LOSSES, few, gain, installed, loss_named, started, unlabelled, warm, warmup_rows
from tests.conftest import real_smears

SMALL = Recipe(classes=CLASSES, input_size=64, views=4)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """A contrastive loss plain enough to be trusted."""
    scores = functional.normalize(one) @ functional.normalize(other).T / 0.2
    return functional.cross_entropy(scores, torch.arange(len(one)))


def maps(count: int) -> MapSource:
    random = np.random.default_rng(0)
    cells = random.normal(0, 1, (count, 1, 192, 2, 2))
    looks = cells + random.normal(0, 0.5, (count, SMALL.views, 192, 2, 2))
    return MapSource(looks.astype(np.float16))


def test_warm_teaches_the_tail_alone_and_the_same_seed_gives_the_same_one() -> None:
    model, other = started(SMALL, 0), started(SMALL, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = warm(model, maps(24), apart, seed=1, steps=1)
    last = warm(other, maps(24), apart, seed=1, steps=25)
    assert last < first
    changed = {name.split(".")[0] for name, value in other.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"tail"}
    again = started(SMALL, 0)
    warm(again, maps(24), apart, seed=1, steps=1)
    for value, same in zip(model.tail.parameters(), again.tail.parameters(), strict=True):
        torch.testing.assert_close(value, same)


def test_few_takes_so_many_of_each_class_or_all_there_are() -> None:
    labels = np.array([0] * 30 + [1] * 3 + [4] * 10)
    chosen = few(labels, 5, np.random.default_rng(0))
    assert np.bincount(labels[chosen], minlength=5).tolist() == [5, 3, 0, 0, 5]
    assert len(set(chosen.tolist())) == len(chosen)
    assert not np.array_equal(chosen, few(labels, 5, np.random.default_rng(1)))


def test_gain_is_paired_and_its_interval_knows_when_there_is_none() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 200)
    groups = [f"g{number // 2}" for number in range(200)]
    worse = [np.where(random.random(200) < 0.3, (truth + 1) % 4, truth) for _ in range(3)]
    better = [np.where(random.random(200) < 0.1, (truth + 1) % 4, truth) for _ in range(3)]
    value, low, high = gain(truth, groups, worse, better)
    assert 0.05 < low < value < high
    assert gain(truth, groups, worse, worse) == (0.0, 0.0, 0.0)


@pytest.mark.data
def test_unlabelled_cells_are_of_training_groups_and_cut_from_fields(tmp_path: Path) -> None:
    data = real_smears()
    assert data is not None
    header, *lines = (data / "labels.csv").read_text().splitlines()
    of_fields = [line for line in lines if line.startswith("bccd/")]
    some = {line.split(",")[0] for line in of_fields[::10]}
    few_fields = tmp_path / "labels.csv"
    few_fields.write_text("\n".join([header, *(line for line in of_fields if line.split(",")[0] in some)]) + "\n")
    import_source(tmp_path / "home", data, "csv", labels=few_fields)
    fields = Catalogue(tmp_path / "home").fields()
    found = unlabelled(tmp_path / "home", ("bccd",))
    assert {field.split.value for field in fields} > {"train"}
    assert {cell.split.value for cell in found} == {"train"}
    assert all(cell.box is not None for cell in found)
    assert {cell.group for cell in found} <= {field.group for field in fields if field.split.value == "train"}


@pytest.mark.skipif(installed(), reason="lightly is installed")
def test_without_lightly_the_bench_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert warmup_rows(tmp_path, tmp_path) == []
    assert "lightly is not installed" in capsys.readouterr().err
    with pytest.raises(DependencyMissingError):
        loss_named(LOSSES[0])


@pytest.mark.skipif(not installed(), reason="lightly is not installed: pip install --no-deps lightly lightly_utils")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_less_for_looks_that_agree(name: str) -> None:
    one = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    other = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    loss = loss_named(name)
    assert float(loss(one, one + 0.01 * other)) < float(loss(one, other))
