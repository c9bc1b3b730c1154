"""Named tensors on the wire: safetensors bytes, checked by their header alone (no numpy, no torch).

Server and nodes exchange all tensors of a message as *one* safetensors body: a message then costs Flower one object
instead of one for each tensor. The bytes come from another party, so both sides check them here before they are read.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from shared.contracts.errors import DataInvalidError

RECORD_CONFIG = "config"
"""Name of the ConfigRecord in a message's content; its keys are ``request`` or ``reply`` (JSON)."""
RECORD_ARRAYS = "arrays"
"""Name of the ArrayRecord; it holds one array under `ARRAY_NAME`, or the record is absent."""
ARRAY_NAME = "tensors"
STYPE = "safetensors"

MAX_BYTES = 256 * 1024 * 1024
MAX_TENSORS = 4096
_MAX_HEADER = 4 * 1024 * 1024
_ITEM_BYTES = {"F16": 2, "F32": 4}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Data type (``F16`` or ``F32``) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def check_tensors(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, TensorSpec]:
    """Return name → spec of the tensors in ``body``, having checked that the header is sound.

    Raises:
        DataInvalidError: the body is too large, is not safetensors, holds another data type than fp16 or fp32, or its
            offsets do not cover the data exactly, in order and without overlap.
    """
    if len(body) > max_bytes:
        raise DataInvalidError(f"The tensors are larger than the {max_bytes // 1_048_576} MB allowed in a message.")
    if len(body) < 8:
        raise DataInvalidError("The tensors are not in safetensors form.")
    (length,) = struct.unpack("<Q", body[:8])
    if length > min(_MAX_HEADER, len(body) - 8):
        raise DataInvalidError("The tensors are not in safetensors form.")
    try:
        header = json.loads(body[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise DataInvalidError("The tensors are not in safetensors form.") from error
    if not isinstance(header, dict):
        raise DataInvalidError("The tensors are not in safetensors form.")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise DataInvalidError(f"A message may hold at most {MAX_TENSORS} tensors.")
    ranges: list[tuple[int, int]] = []
    specs: dict[str, TensorSpec] = {}
    for name, entry in header.items():
        spec, begin, end = _entry(entry)
        specs[name] = spec
        ranges.append((begin, end))
    position = 0
    for begin, end in sorted(ranges):
        if begin != position:
            raise DataInvalidError("The tensors overlap or leave gaps.")
        position = end
    if position != len(body) - 8 - length:
        raise DataInvalidError("The tensors do not fill the message.")
    return specs


def _entry(entry: object) -> tuple[TensorSpec, int, int]:
    if not isinstance(entry, dict):
        raise DataInvalidError("The tensors are not in safetensors form.")
    dtype, shape, offsets = entry.get("dtype"), _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if dtype not in _ITEM_BYTES:
        raise DataInvalidError("Only fp16 and fp32 tensors may travel.")
    if shape is None or len(shape) > 8 or offsets is None or len(offsets) != 2:
        raise DataInvalidError("The tensors are not in safetensors form.")
    begin, end = offsets
    if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise DataInvalidError("A tensor's size does not match its shape.")
    return TensorSpec(dtype, tuple(shape)), begin, end


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
