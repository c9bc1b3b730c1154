"""Updates that are far too large are refused with a reason, whatever the strategy and the order they come in."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from server.federation.strategies.build import build
from server.federation.strategies.guard import KEPT
from server.federation.strategies.port import Aggregation, Sent
from server.federation.strategies.registry import (
    OFFERED,
    FedAvgParameters,
    MultiKrumParameters,
    Parameters,
    TrimmedMeanParameters,
)
from server.federation.strategies.tensors import Tensors
from shared.contracts.errors import DataInvalidError
from tests.server.federation.strategies.synthetic import sent, update

START = {"head": np.zeros(3, np.float32), "finder.w": np.zeros(3, np.float32)}


def _begin(
    folder: Path, parameters: Parameters | None = None, state: Tensors | None = None
) -> tuple[Sent, Aggregation]:
    begun = sent(START, state=state)
    return begun, build(parameters or FedAvgParameters(), folder=folder).begin(begun)


def _add(aggregation: Aggregation, site: str, head: float, finder: float = 0.0) -> str:
    """Add a site's update; return the reason if it is refused at once."""
    tensors = {"head": np.full(3, head, np.float32), "finder.w": np.full(3, finder, np.float32)}
    try:
        aggregation.add(update(site, tensors, boxes=int(finder != 0)))
    except DataInvalidError as error:
        return error.message
    return ""


def _play(aggregation: Aggregation, heads: dict[str, float]) -> dict[str, str]:
    """Return the refused sites' reasons, however they came to be refused."""
    reasons = {site: _add(aggregation, site, head) for site, head in heads.items()}
    return {site: reason for site, reason in reasons.items() if reason} | dict(aggregation.close().refused)


@pytest.mark.parametrize("kind", OFFERED.values(), ids=lambda kind: kind.name)
def test_update_a_hundred_times_too_large_is_refused_with_every_strategy(
    kind: type[Parameters], tmp_path: Path
) -> None:
    _, aggregation = _begin(tmp_path, kind())
    refused = _play(aggregation, {"a": 1.0, "b": 1.0, "bad": 100.0, "c": 0.9, "d": 1.0, "e": 1.0})
    assert list(refused) == ["bad"]
    assert refused["bad"].startswith("Its update is 100 times as large as the median; 10 times are allowed.")
    assert aggregation.updates == 5


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "bad"])))
def test_order_of_arrival_does_not_matter(order: tuple[str, ...], tmp_path: Path) -> None:
    _, aggregation = _begin(tmp_path)
    sizes = {"a": 1.0, "b": 3.0, "bad": 100.0}
    assert list(_play(aggregation, {site: sizes[site] for site in order})) == ["bad"]
    np.testing.assert_allclose(aggregation.result().tensors["head"], [2, 2, 2])


def test_nobody_is_refused_for_being_small_or_unchanged(tmp_path: Path) -> None:
    _, aggregation = _begin(tmp_path)
    assert _play(aggregation, {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1e-3, "e": 5.0, "f": 5.0}) == {}
    assert aggregation.updates == 6


def test_two_hospitals_are_judged_from_the_second_round_on(tmp_path: Path) -> None:
    _, first = _begin(tmp_path)
    assert _play(first, {"a": 1.0, "b": 2.0}) == {}
    state = first.result().state
    assert float(state[f"{KEPT}classifier"]) == pytest.approx(1.5 * 3**0.5)
    for _ in range(3):  # what is refused must not move the measure
        _, later = _begin(tmp_path, state=state)
        assert list(_play(later, {"bad": 150.0, "a": 1.0})) == ["bad"]
        state = later.result().state
    assert float(state[f"{KEPT}classifier"]) == pytest.approx(3**0.5)


def test_one_hospital_alone_is_judged_by_its_own_last_round(tmp_path: Path) -> None:
    _, first = _begin(tmp_path)
    assert _play(first, {"a": 1.0}) == {}
    _, second = _begin(tmp_path, state=first.result().state)
    assert list(_play(second, {"a": 11.0})) == ["a"]
    assert second.updates == 0


def test_finder_is_measured_by_itself(tmp_path: Path) -> None:
    _, first = _begin(tmp_path)
    for site in "abc":
        assert not _add(first, site, 100.0, finder=1.0)
    assert "times as large" in _add(first, "bad", 100.0, finder=50.0)
    assert not _add(first, "without fields", 100.0)
    assert first.close().refused == {}
    assert first.updates == 4


def test_no_more_than_two_updates_are_held_back(tmp_path: Path) -> None:
    _, aggregation = _begin(tmp_path)
    guarded = aggregation
    most = 0
    for place in range(50):
        _add(aggregation, str(place), 0.0 if place % 2 else 1.0)
        most = max(most, len(guarded._held))  # type: ignore[attr-defined]  # what the bound is about
    assert most == 2


def test_guard_can_be_turned_off(tmp_path: Path) -> None:
    _, aggregation = _begin(tmp_path, FedAvgParameters(norm_limit=0))
    assert _play(aggregation, {"a": 1.0, "b": 1.0, "c": 1.0, "bad": 1000.0}) == {}
    assert aggregation.result().state == {}


@pytest.mark.parametrize("parameters", [TrimmedMeanParameters(), MultiKrumParameters()])
def test_held_update_that_the_strategy_cannot_take_is_refused_in_its_own_name(
    parameters: Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.federation.strategies.spool.MAX_BYTES", 0)
    _, aggregation = _begin(tmp_path, parameters)
    for site in "ab":
        assert not _add(aggregation, site, 1.0)
    assert set(aggregation.close().refused) == {"a", "b"}
    assert aggregation.updates == 0
