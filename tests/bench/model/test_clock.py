"""Times beside each other on one core."""

import os

import pytest
import torch

from tests.bench.model.clock import core_ms, middle, one_core


def test_one_core_holds_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    with one_core():
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("1", 1)
    assert "OMP_NUM_THREADS" not in os.environ
    assert torch.get_num_threads() == threads


def test_variants_run_in_turn_and_the_first_time_is_not_counted() -> None:
    order: list[str] = []

    def work(name: str, size: int) -> int:
        order.append(name)
        return sum(range(size))

    taken = core_ms({"a": lambda: work("a", 10), "b": lambda: work("b", 200_000)}, repeats=3)
    assert order == ["a", "b"] * 4
    assert len(taken["a"]) == len(taken["b"]) == 3
    assert middle(taken["b"])[0] > middle(taken["a"])[0]
    assert middle([3.0, 1.0, 8.0]) == (3.0, 1.0, 8.0)
