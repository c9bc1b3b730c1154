"""Named tensors on the wire: safetensors bytes, checked by their header alone (no numpy, no torch).

Server and nodes exchange all tensors of a message as *one* safetensors body: a message then costs Flower one object
instead of one for each tensor. The bytes come from another party, so both sides check them here before they are read.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from shared.contracts.errors import DataInvalidError

RECORD_CONFIG = "config"
"""Name of the ConfigRecord in a message's content; it holds `CONFIG_REQUEST`, or `CONFIG_REPLY` and `CONFIG_SEAL`."""
CONFIG_REQUEST = "request"
CONFIG_REPLY = "reply"
CONFIG_SEAL = "seal"
"""JSON texts."""
RECORD_ARRAYS = "arrays"
"""Name of the ArrayRecord; it holds one array under `ARRAY_NAME`, or the record is absent."""
ARRAY_NAME = "tensors"
STYPE = "safetensors"

MAX_BYTES = 256 * 1024 * 1024
MAX_TENSORS = 4096
MAX_HEADER = 1024 * 1024
"""Bytes. Checking a body takes at most fifty times as much memory, however the header is made."""
_MAX_SIDE = 2**31
_MAX_SIDES = 8
_NAME = re.compile(r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./]{0,199}$")
"""A parameter's name, or what a strategy keeps of one (``momentum/head.weight``)."""
_FIELDS = {"dtype", "shape", "data_offsets"}
_ITEM_BYTES = {"F16": 2, "F32": 4}
_UNSOUND = "The tensors are not in safetensors form."


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Data type (``F16`` or ``F32``) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def check_tensors(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, TensorSpec]:
    """Return name → spec of the tensors in ``body``, having checked that the header is sound.

    Stricter than safetensors' own reader, so that what passes here loads there: names like those of a model's
    parameters and each once, no empty tensor, nothing but type, shape and offsets.

    Raises:
        DataInvalidError: the body is too large, is not safetensors, holds another data type than fp16 or fp32, or its
            offsets do not cover the data exactly, in order and without overlap.
    """
    if len(body) > max_bytes:
        raise DataInvalidError(f"The tensors are larger than the {max_bytes // 1_048_576} MB allowed in a message.")
    header, start = _header(body)
    if len(header) > MAX_TENSORS:
        raise DataInvalidError(f"A message may hold at most {MAX_TENSORS} tensors.")
    ranges: list[tuple[int, int]] = []
    specs: dict[str, TensorSpec] = {}
    for name, entry in header.items():
        if not is_tensor_name(name):
            raise DataInvalidError("A tensor's name is none that a model's parameter has.")
        spec, begin, end = _entry(entry)
        specs[name] = spec
        ranges.append((begin, end))
    position = 0
    for begin, end in sorted(ranges):
        if begin != position:
            raise DataInvalidError("The tensors overlap or leave gaps.")
        position = end
    if position != len(body) - start:
        raise DataInvalidError("The tensors do not fill the message.")
    return specs


def _header(body: bytes) -> tuple[dict[str, object], int]:
    """Return the header without its metadata, and where the data begins."""
    if len(body) < 8:
        raise DataInvalidError(_UNSOUND)
    (length,) = struct.unpack("<Q", body[:8])
    if length > min(MAX_HEADER, len(body) - 8):
        raise DataInvalidError(_UNSOUND)
    try:
        header = json.loads(body[8 : 8 + length].decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise DataInvalidError(_UNSOUND) from error
    if not isinstance(header, dict):
        raise DataInvalidError(_UNSOUND)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataInvalidError(_UNSOUND)
    return header, 8 + length


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")  # two readers may disagree on which one counts
    return found


def _entry(entry: object) -> tuple[TensorSpec, int, int]:
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise DataInvalidError(_UNSOUND)
    dtype, shape, offsets = entry["dtype"], _naturals(entry["shape"]), _naturals(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise DataInvalidError("Only fp16 and fp32 tensors may travel.")
    if shape is None or offsets is None or len(offsets) != 2:
        raise DataInvalidError(_UNSOUND)
    if not is_shape(shape):
        raise DataInvalidError("A tensor is empty or impossibly large.")
    begin, end = offsets
    if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise DataInvalidError("A tensor's size does not match its shape.")
    return TensorSpec(dtype, tuple(shape)), begin, end


def is_tensor_name(value: object) -> bool:
    """Whether ``value`` is a name that a model's parameter may have, or a strategy's state."""
    return isinstance(value, str) and _NAME.match(value) is not None


def is_shape(value: object) -> bool:
    """Whether ``value`` is the shape (a list) of a tensor that is neither empty nor impossibly large."""
    sides = _naturals(value)
    return sides is not None and len(sides) <= _MAX_SIDES and all(0 < side <= _MAX_SIDE for side in sides)


def _naturals(value: object) -> list[int] | None:
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 2**40 for item in value):
        return value
    return None


def check_same_shapes(received: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec]) -> None:
    """Refuse tensors whose names or shapes differ from ``expected`` (the data type may differ).

    Raises:
        DataInvalidError: a name is missing or unknown, or a shape differs.
    """
    if {name: spec.shape for name, spec in received.items()} != {name: spec.shape for name, spec in expected.items()}:
        raise DataInvalidError("The tensors' names or shapes are not those that were sent out.")
