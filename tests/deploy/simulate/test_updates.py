"""Synthetic updates through the centre's checks, and what they take."""

from pathlib import Path

import pytest

from deploy.simulate.updates import Load, measure
from server.federation.strategies.registry import FedAvgParameters, MultiKrumParameters, Parameters
from shared.contracts.errors import RunFailedError

MEGABYTES = 4.0


def _load(folder: Path, strategy: Parameters | None = None) -> Load:
    return Load(strategy or FedAvgParameters(), MEGABYTES, 2, folder)


def test_memory_is_flat_in_the_number_of_hospitals(tmp_path: Path) -> None:
    done: list[int] = []
    few = measure(_load(tmp_path), 5, told=lambda _done: None)
    many = measure(_load(tmp_path), 30, told=done.append)
    assert (few.updates, many.updates) == (10, 60)
    assert done == list(range(1, 61))
    assert many.server_mb - few.server_mb < 4 * MEGABYTES  # 25 more updates would be 100
    assert 0 < few.seconds_a_round < many.seconds_a_round


def test_a_strategy_that_has_too_few_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="Multi-Krum needs 5 hospitals"):
        measure(_load(tmp_path, MultiKrumParameters()), 3, told=lambda _done: None)
