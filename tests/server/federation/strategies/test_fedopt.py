"""Server optimisers against the formulas of their papers, and after being killed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.federation.strategies.build import build
from server.federation.strategies.fedopt import MOMENTUM, SECOND_MOMENT
from server.federation.strategies.registry import (
    FedAdamParameters,
    FedAvgMParameters,
    FedYogiParameters,
    Parameters,
)
from server.federation.strategies.tensors import read_tensors, stored_tensors
from tests.server.federation.strategies.synthetic import Array, play, sent, update

Wide = NDArray[np.float64]
START = {"a": np.array([[0.5, -1.0], [0.25, 2.0]], np.float32), "finder.b": np.array([0.125, 0.0, -4.0], np.float32)}


def _differences(seed: int, rounds: int = 3, sites: int = 4) -> list[list[dict[str, Array]]]:
    random = np.random.default_rng(seed)
    return [
        [
            {name: (0.1 * random.normal(size=array.shape)).astype(np.float32) for name, array in START.items()}
            for _ in range(sites)
        ]
        for _ in range(rounds)
    ]


def _momentum(given: FedAvgMParameters, x: Wide, deltas: list[Wide]) -> Wide:
    m = np.zeros_like(x)
    for delta in deltas:
        m = given.momentum * m + delta
        x = x + given.server_learning_rate * m
    return x


def _adam(given: FedAdamParameters, x: Wide, deltas: list[Wide]) -> Wide:
    m, v = np.zeros_like(x), np.zeros_like(x)
    for number, delta in enumerate(deltas, start=1):
        m = given.beta_1 * m + (1 - given.beta_1) * delta
        v = given.beta_2 * v + (1 - given.beta_2) * delta**2
        # Flower's bias correction counts one round more than Kingma & Ba's.
        rate = (
            given.server_learning_rate * np.sqrt(1 - given.beta_2 ** (number + 1)) / (1 - given.beta_1 ** (number + 1))
        )
        x = x + rate * m / (np.sqrt(v) + given.tau)
    return x


def _yogi(given: FedYogiParameters, x: Wide, deltas: list[Wide]) -> Wide:
    m, v = np.zeros_like(x), np.zeros_like(x)
    for delta in deltas:
        m = given.beta_1 * m + (1 - given.beta_1) * delta
        v = v - (1 - given.beta_2) * delta**2 * np.sign(v - delta**2)
        x = x + given.server_learning_rate * m / (np.sqrt(v) + given.tau)
    return x


CASES = [
    (FedAvgMParameters(server_learning_rate=0.7, momentum=0.6), _momentum),
    (FedAvgMParameters(server_learning_rate=1.0, momentum=0.0), _momentum),
    (FedAvgMParameters(server_learning_rate=0.5, momentum=0.0), _momentum),
    (FedAdamParameters(server_learning_rate=0.05), _adam),
    (FedAdamParameters(server_learning_rate=0.02, beta_1=0.5, beta_2=0.8, tau=0.01), _adam),
    (FedYogiParameters(server_learning_rate=0.05), _yogi),
]


@pytest.mark.parametrize(("parameters", "reference"), CASES)
def test_optimiser_follows_its_formula_over_rounds(
    parameters: Parameters, reference: Callable[[Parameters, Wide, list[Wide]], Wide], tmp_path: Path
) -> None:
    rounds = _differences(1)
    result = play(build(parameters, folder=tmp_path), START, rounds)
    for name, start in START.items():
        deltas = [np.mean([site[name].astype(np.float64) for site in sites], axis=0) for sites in rounds]
        expected = reference(parameters, start.astype(np.float64), deltas)
        np.testing.assert_allclose(result.tensors[name], expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("parameters", [CASES[0][0], CASES[3][0], CASES[4][0], CASES[5][0]])
def test_state_that_was_stored_goes_on_with_the_same_bits(parameters: Parameters, tmp_path: Path) -> None:
    strategy, rounds = build(parameters, folder=tmp_path), _differences(2, rounds=2)
    straight = play(strategy, START, rounds)
    first = play(strategy, START, rounds[:1])
    state, tensors = read_tensors(stored_tensors(first.state)), read_tensors(stored_tensors(first.tensors))
    begun = sent(tensors, number=2, state=state)
    aggregation = build(parameters, folder=tmp_path).begin(begun)
    for place, difference in enumerate(rounds[1]):
        changed = {name: begun.tensors[name] + array for name, array in difference.items()}
        aggregation.add(update(f"site-{place}", changed, boxes=1))
    aggregation.close()
    resumed = aggregation.result()
    assert stored_tensors(resumed.tensors) == stored_tensors(straight.tensors)
    assert stored_tensors(resumed.state) == stored_tensors(straight.state)
    assert any(array.any() for name, array in resumed.state.items() if name.startswith(MOMENTUM))


def test_tensors_that_nobody_trained_rest_with_their_state(tmp_path: Path) -> None:
    strategy = build(FedAdamParameters(), folder=tmp_path)
    before = play(strategy, START, _differences(3, rounds=1))
    begun = sent(before.tensors, number=2, state=before.state)
    aggregation = strategy.begin(begun)
    aggregation.add(update("a", {name: array + 0.1 for name, array in begun.tensors.items()}, boxes=0))
    aggregation.close()
    after = aggregation.result()
    np.testing.assert_array_equal(after.tensors["finder.b"], before.tensors["finder.b"])
    assert (after.tensors["a"] > before.tensors["a"]).all()
    for prefix in (MOMENTUM, SECOND_MOMENT):
        np.testing.assert_array_equal(after.state[f"{prefix}finder.b"], before.state[f"{prefix}finder.b"])


def test_steps_below_half_precision_add_up(tmp_path: Path) -> None:
    strategy = build(FedAvgMParameters(server_learning_rate=0.01, momentum=0.0, norm_limit=0), folder=tmp_path)
    start, step = {"a": np.array([1.0], np.float32)}, {"a": np.array([0.02], np.float32)}
    result = play(strategy, start, [[step]] * 10)  # each step is a fifth of what fp16 can say at 1
    np.testing.assert_allclose(result.tensors["a"], [1.002], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-4, 10.0), seed=st.integers(0, 1000))
def test_fedadams_first_step_is_bounded_by_its_rate_whatever_hospitals_send(scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    difference = {"a": (scale * random.normal(size=4)).astype(np.float32)}
    result = play(build(FedAdamParameters(), folder=Path()), {"a": np.zeros(4, np.float32)}, [[difference]])
    assert np.abs(result.tensors["a"]).max() <= FedAdamParameters().server_learning_rate
