"""Noise at the centre: clipping, the noise's size, what is kept, and how it goes with what is within."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest

from server.federation.privacy import Measure, RunPrivacy, central_epsilon, central_noise
from server.federation.strategies.build import build
from server.federation.strategies.central_dp import ROUNDS, CentralDp
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.port import Result, Sent, Update
from server.federation.strategies.registry import FedAvgMParameters, FedAvgParameters
from server.federation.strategies.tensors import Tensors, wire_tensors
from shared.contracts.errors import RunFailedError

START: Tensors = {"finder.w": np.zeros((50, 40), np.float32), "w": np.zeros((100, 80), np.float32)}
VALUES = 10_000


def _round(strategy: CentralDp, steps: list[float], *, sent: Sent | None = None, boxes: int = 0) -> Result:
    aggregation = strategy.begin(sent or Sent.of(1, wire_tensors(START)))
    for number, step in enumerate(steps):
        tensors = {name: array + np.float32(step) for name, array in START.items()}
        aggregation.add(Update(f"h{number}", tensors, examples=10 + number, boxes=boxes))
    aggregation.close()
    return aggregation.result()


def _strategy(*, clip: float = 1.0, noise: float = 1e-9, seed: int = 1) -> CentralDp:
    seeds = count(seed)
    return CentralDp(FedAvg(), clip=clip, noise_multiplier=noise, delta=1e-5, entropy=lambda: next(seeds))


def _norm(result: Result) -> float:
    return float(np.sqrt(sum(float(np.square(array).sum()) for array in result.tensors.values())))


def test_large_updates_are_clipped_and_small_ones_left() -> None:
    assert _norm(_round(_strategy(), [5.0, 5.0])) == pytest.approx(1.0, rel=1e-3)
    small = 0.5 / np.sqrt(VALUES)
    assert _norm(_round(_strategy(), [small, small])) == pytest.approx(0.5, rel=1e-3)
    assert _norm(_round(_strategy(), [5.0, -5.0])) == pytest.approx(0.0, abs=1e-3)  # one hospital moves it by a half


def test_every_hospital_weighs_alike_with_and_without_marked_fields() -> None:
    with_boxes, without = (_round(_strategy(), [0.001, 0.003], boxes=boxes).tensors for boxes in (7, 0))
    for name in START:
        np.testing.assert_array_equal(with_boxes[name], without[name])
        np.testing.assert_allclose(without[name], 0.002, rtol=1e-3)


@pytest.mark.parametrize("hospitals", [2, 8])
def test_noise_is_of_the_stated_size_over_the_hospitals(hospitals: int) -> None:
    result = _round(_strategy(clip=0.5, noise=3.0), [0.0] * hospitals)
    values = np.concatenate([array.ravel() for array in result.tensors.values()])
    assert values.std() == pytest.approx(3.0 * 0.5 / hospitals, rel=0.03)
    assert abs(values.mean()) < 0.05 * values.std()


def test_noise_is_new_each_time() -> None:
    strategy = CentralDp(FedAvg(), clip=1.0, noise_multiplier=1.0, delta=1e-5)
    first, second = (_round(strategy, [0.0, 0.0]).tensors["w"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_spent_rounds_are_kept_and_told_with_the_inner_state() -> None:
    privacy = RunPrivacy(measure=Measure.CENTRAL_DP, epsilon=8.0)
    strategy = build(FedAvgMParameters(norm_limit=0), folder=None, privacy=privacy, rounds=2)  # type: ignore[arg-type]
    state: Tensors = {}
    for number in (1, 2):
        sent = Sent.of(number, wire_tensors(START), None, state)
        aggregation = strategy.begin(sent)
        for site in range(3):
            aggregation.add(Update(f"h{site}", START, examples=10))
        assert aggregation.updates == 3
        (note,) = aggregation.close().notes
        spent = central_epsilon(central_noise(8.0, 2, 1e-5), number, 1e-5)
        assert f"{number} round" in note
        assert f"ε {spent:.2f}" in note
        state = aggregation.result().state
        assert state[ROUNDS] == number
        assert any(name.startswith("m/") for name in state)
    assert spent <= 8.0


def test_round_without_updates_fails_as_ever(tmp_path: Path) -> None:
    aggregation = build(FedAvgParameters(), folder=tmp_path, privacy=RunPrivacy(measure=Measure.CENTRAL_DP)).begin(
        Sent.of(1, wire_tensors(START))
    )
    aggregation.close()
    with pytest.raises(RunFailedError):
        aggregation.result()
