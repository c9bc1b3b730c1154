"""Where a site keeps its own normalisation, and what a round, a retry and a trial find there."""

import os
from pathlib import Path

import numpy as np

from client_node.models.normalisation import OwnNormalisation
from shared.contracts.training import Recipe
from tests.client_node.training.site import RECIPE

BASE = "a" * 64


def kept(home: Path, recipe: Recipe = RECIPE, base: str = BASE) -> OwnNormalisation:
    return OwnNormalisation(home, recipe, base)


def value(number: float) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"tail.0.bn.weight": np.full(3, number, np.float32)}


def first(found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None) -> float | None:
    return None if found is None else float(found["tail.0.bn.weight"][0])


def test_a_round_begins_with_what_the_one_before_left_and_so_does_its_retry(tmp_path: Path) -> None:
    store = kept(tmp_path)
    assert store.before("run", 1) is None
    for number in (1, 2, 3):
        store.keep("run", number, value(number))
    assert first(kept(tmp_path).before("run", 4)) == 3.0
    assert first(store.before("run", 3)) == 2.0  # the third round is asked for again
    store.keep("run", 2, value(2.5))  # resumed after the first round
    assert (first(store.before("run", 3)), first(store.after("run"))) == (2.5, 2.5)


def test_a_private_round_passes_over_what_was_learnt_without_noise(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.keep("run", 1, value(1.0), noised=True)
    store.keep("run", 2, value(2.0))
    assert first(kept(tmp_path).before("run", 3)) == 2.0
    assert first(kept(tmp_path).before("run", 3, noised=True)) == 1.0
    assert first(kept(tmp_path).before("run", 1, noised=True)) is None


def test_another_run_of_the_same_base_goes_on_and_one_of_another_does_not(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.keep("old", 5, value(5.0))
    assert store.before("new", 1) is None
    assert first(store.of_others("new")) == 5.0
    assert store.of_others("old") is None
    assert first(store.after("new")) == 5.0
    for other in (
        kept(tmp_path, base="b" * 64),
        kept(tmp_path, RECIPE.model_copy(update={"input_size": 96})),
        kept(tmp_path, RECIPE.model_copy(update={"frozen_stages": 5})),
        kept(tmp_path, RECIPE.model_copy(update={"classes": RECIPE.classes[:2]})),
    ):
        assert other.of_others("new") is other.after("old") is None


def test_old_runs_go_and_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    store = kept(tmp_path)
    for number in range(6):
        store.keep(f"run-{number}", 1, value(number))
        for file in tmp_path.rglob(f"run-{number}.*"):
            os.utime(file, (1e9 + number, 1e9 + number))
    names = sorted(file.name for file in tmp_path.rglob("*.safetensors"))
    assert names == [f"run-{number}.r0001.safetensors" for number in (2, 3, 4, 5)]
    next(tmp_path.rglob("run-5.*")).write_bytes(b"broken")
    assert first(store.of_others("run-9")) == 4.0
    assert not list(tmp_path.rglob("*.partial"))
