"""The header check of tensors that come from another party."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load, save

from shared.contracts.errors import DataInvalidError
from shared.tensors import TensorSpec, check_same_shapes, check_tensors
from tests.hostile import bodies, worst_headers


def _body(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_sound_body_gives_names_and_shapes() -> None:
    body = save({"a": np.ones((2, 3), np.float16), "b": np.zeros((4,), np.float32), "scalar": np.array(1, np.float32)})
    assert check_tensors(body) == {
        "a": TensorSpec("F16", (2, 3)),
        "b": TensorSpec("F32", (4,)),
        "scalar": TensorSpec("F32", ()),
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 10) + b"not json!!",
        _body([1, 2]),
        _body({"a": 3}),
        _body({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345678"),
        _body({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        _body({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        _body({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        _body({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234"),
        _body({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, b"1234"),
        _body(
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            b"1234",
        ),
        struct.pack("<Q", 60_000) + b"[" * 60_000,
    ],
)
def test_hostile_body_is_refused(body: bytes) -> None:
    with pytest.raises(DataInvalidError):
        check_tensors(body)


def test_too_large_body_is_refused() -> None:
    with pytest.raises(DataInvalidError, match="larger"):
        check_tensors(save({"a": np.zeros(1000, np.float32)}), max_bytes=1000)


def test_other_shapes_are_refused_and_other_types_are_not() -> None:
    sent = check_tensors(save({"a": np.zeros((2, 2), np.float16)}))
    check_same_shapes(check_tensors(save({"a": np.zeros((2, 2), np.float32)})), sent)
    with pytest.raises(DataInvalidError):
        check_same_shapes(check_tensors(save({"a": np.zeros((4,), np.float16)})), sent)
    with pytest.raises(DataInvalidError):
        check_same_shapes({}, sent)


def _raw(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "body",
    [
        _body({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        _body({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}}, b"1234"),
        _body({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        _body({"a": {"dtype": "F32", "shape": [0, 2**31, 2**31], "data_offsets": [0, 0]}}),
        _body({"../../etc/passwd": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        _body({"": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        _body({"__metadata__": 3, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        _body({"__metadata__": {"a": []}}),
        _raw(
            b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
            b"12",
        ),
        _raw('{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'.encode("utf-16"), b"12"),
        _raw(b'{"a":{"dtype":"F16","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,2]}}', b"12"),
        _raw(b'{"a":NaN}'),
        _raw(b"\xff\xfe{}"),
    ],
)
def test_body_on_which_two_readers_might_disagree_is_refused(body: bytes) -> None:
    with pytest.raises(DataInvalidError):
        check_tensors(body)


@settings(max_examples=500, deadline=None)
@given(body=bodies({"w": (2, 3), "bias": (), "deep": (1, 1, 2)}))
def test_what_passes_is_what_safetensors_loads(body: bytes) -> None:
    try:
        specs = check_tensors(body)
    except DataInvalidError:
        return
    names = {"float16": "F16", "float32": "F32"}
    assert specs == {name: TensorSpec(names[str(array.dtype)], array.shape) for name, array in load(body).items()}


@pytest.mark.parametrize("number", range(len(worst_headers())))
def test_costly_header_is_refused(number: int) -> None:
    with pytest.raises(DataInvalidError):
        check_tensors(worst_headers()[number])
