"""Averaging updates of unequal weight and unequal honesty."""

import numpy as np
import pytest
from safetensors.numpy import save

from server.federation.strategy import WeightedAverage, read_tensors, stored_tensors, wire_tensors
from shared.contracts.errors import DataInvalidError


def _update(value: float, shape: tuple[int, ...] = (2, 2)) -> bytes:
    return bytes(save({"w": np.full(shape, value, np.float16)}))


def test_average_counts_every_hospital_alike_by_default() -> None:
    average = WeightedAverage(_update(0))
    average.add(_update(1), 16)
    average.add(_update(4), 10_000)
    np.testing.assert_allclose(average.result()["w"], np.full((2, 2), 2.5))


def test_average_tempers_the_weight_of_large_sites() -> None:
    average = WeightedAverage(_update(0), exponent=0.25)
    average.add(_update(1), 16)
    average.add(_update(4), 10_000)
    np.testing.assert_allclose(average.result()["w"], np.full((2, 2), (2 * 1 + 10 * 4) / 12))


def test_average_is_weighted_by_examples() -> None:
    average = WeightedAverage(_update(0), exponent=1)
    average.add(_update(1), 100)
    average.add(_update(4), 300)
    np.testing.assert_allclose(average.result()["w"], np.full((2, 2), 3.25))
    assert (average.weight, average.updates) == (400, 2)


def _both(value: float) -> bytes:
    return bytes(save({name: np.full(2, value, np.float16) for name in ("head.w", "finder.w")}))


def test_only_sites_with_marked_fields_move_the_finder() -> None:
    average = WeightedAverage(_both(0))
    average.add(_both(1), 10)
    average.add(_both(3), 10, boxes=5)
    result = average.result()
    np.testing.assert_allclose(result["head.w"], np.full(2, 2.0))
    np.testing.assert_allclose(result["finder.w"], np.full(2, 3.0))


def test_finder_stays_as_sent_where_no_site_has_marked_fields() -> None:
    average = WeightedAverage(_both(7))
    average.add(_both(1), 10)
    result = average.result()
    np.testing.assert_allclose(result["head.w"], np.full(2, 1.0))
    np.testing.assert_allclose(result["finder.w"], np.full(2, 7.0))


@pytest.mark.parametrize(
    ("body", "examples"),
    [
        (_update(1), 0),
        (_update(1), -5),
        (_update(1), 10**9),
        (_update(1, (4,)), 10),
        (_update(float("nan")), 10),
        (_update(float("inf")), 10),
        (bytes(save({"other": np.zeros((2, 2), np.float16)})), 10),
        (b"", 10),
    ],
)
def test_unsound_update_is_refused_and_changes_nothing(body: bytes, examples: int) -> None:
    average = WeightedAverage(_update(0))
    average.add(_update(2), 10)
    with pytest.raises(DataInvalidError):
        average.add(body, examples)
    np.testing.assert_allclose(average.result()["w"], np.full((2, 2), 2.0))
    assert average.updates == 1


def test_wire_form_is_half_precision_and_stored_form_is_exact() -> None:
    tensors = {"b": np.array([1.0001], np.float32), "a": np.array([[2.0]], np.float32)}
    np.testing.assert_array_equal(read_tensors(stored_tensors(tensors))["b"], tensors["b"])
    np.testing.assert_array_equal(
        read_tensors(wire_tensors(tensors))["b"], np.array([1.0001], np.float16).astype(np.float32)
    )


def test_diverged_model_does_not_travel() -> None:
    with pytest.raises(DataInvalidError, match="not finite"):
        wire_tensors({"a": np.array([1e20], np.float32)})


def test_scalar_tensor_keeps_its_shape() -> None:
    body = bytes(save({"s": np.array(2, np.float16)}))
    average = WeightedAverage(body)
    average.add(body, 3)
    assert read_tensors(wire_tensors(average.result()))["s"].shape == ()
    assert read_tensors(stored_tensors(average.result()))["s"] == 2
