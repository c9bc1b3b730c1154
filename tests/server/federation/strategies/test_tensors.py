"""Tensors on the wire and in the store."""

import numpy as np
import pytest
from safetensors.numpy import save

from server.federation.strategies.average import WeightedAverage
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import read_tensors, stored_tensors, wire_tensors
from server.federation.strategies.updates import verify
from shared.contracts.errors import DataInvalidError


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
    sent = Sent.of(1, body)
    average = WeightedAverage(sent)
    average.add(verify("a", body, sent, examples=3))
    assert read_tensors(wire_tensors(average.average()))["s"].shape == ()
    assert read_tensors(stored_tensors(average.average()))["s"] == 2
