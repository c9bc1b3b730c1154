"""Averaging updates of unequal weight, and against Flower's own FedAvg."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from server.federation.strategies.average import WeightedAverage
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.fedopt import reply_of
from shared.contracts.errors import RunFailedError
from tests.server.federation.strategies.synthetic import sent, update


def _full(value: float) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"w": np.full((2, 2), value, np.float32)}


def _both(value: float) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: np.full(2, value, np.float32) for name in ("head.w", "finder.w")}


def test_average_counts_every_hospital_alike_by_default() -> None:
    average = FedAvg().begin(sent(_full(0)))
    average.add(update("a", _full(1), examples=16))
    average.add(update("b", _full(4), examples=10_000))
    np.testing.assert_allclose(average.result().tensors["w"], np.full((2, 2), 2.5))
    assert (average.updates, average.close().refused, average.result().state) == (2, {}, {})


@pytest.mark.parametrize(("exponent", "expected"), [(0.25, (2 * 1 + 10 * 4) / 12), (1.0, (16 + 40_000) / 10_016)])
def test_average_tempers_the_weight_of_large_sites(exponent: float, expected: float) -> None:
    average = WeightedAverage(sent(_full(0)), exponent=exponent)
    average.add(update("a", _full(1), examples=16))
    average.add(update("b", _full(4), examples=10_000))
    np.testing.assert_allclose(average.average()["w"], np.full((2, 2), expected), rtol=1e-6)


def test_average_is_what_flowers_fedavg_makes_of_all_replies_at_once() -> None:
    random = np.random.default_rng(0)
    updates = [{name: random.normal(size=(3, 2)).astype(np.float32) for name in "ab"} for _ in range(4)]
    average = WeightedAverage(sent(updates[0]), exponent=1)
    replies = []
    for number, tensors in enumerate(updates, start=1):
        average.add(update(str(number), tensors, examples=number * 7))
        arrays = ArrayRecord({name: Array(array) for name, array in tensors.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": number * 7})})
        replies.append(reply_of(content))
    expected, _ = FlowerFedAvg().aggregate_train(1, replies)
    assert expected is not None
    for name, array in average.average().items():
        np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-6)


def test_only_sites_with_marked_fields_move_the_finder() -> None:
    average = WeightedAverage(sent(_both(0)))
    average.add(update("a", _both(1)))
    average.add(update("b", _both(3), boxes=5))
    np.testing.assert_allclose(average.average()["head.w"], np.full(2, 2.0))
    np.testing.assert_allclose(average.average()["finder.w"], np.full(2, 3.0))
    assert average.moved() == {"head.w", "finder.w"}


def test_finder_stays_as_sent_where_no_site_has_marked_fields() -> None:
    average = WeightedAverage(sent(_both(7)))
    average.add(update("a", _both(1)))
    np.testing.assert_allclose(average.average()["head.w"], np.full(2, 1.0))
    np.testing.assert_allclose(average.average()["finder.w"], np.full(2, 7.0))
    assert average.moved() == {"head.w"}


def test_average_of_nothing_is_a_failed_run() -> None:
    with pytest.raises(RunFailedError):
        WeightedAverage(sent(_full(0))).result()
