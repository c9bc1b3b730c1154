"""Packed tensors: differences from a reference that both sides have, about five bits a value (numpy, no torch).

A tensor's row (its values for one output channel; a tensor of one dimension is one row) is told as int8 levels of a
step that is a share of the row's root mean square: every row then costs about the same and errs by the same share of
what changed in it. Levels are near a bell curve, so that a Huffman code alone takes them to `STEP`'s bits; zlib's
`Z_HUFFMAN_ONLY` is one, with a checksum. The step is rounded *up* to the upper half of an fp32, two bytes a row.

A body is `MAGIC` (the version is in it), the header's length (uint32, little-endian), the header (JSON: the SHA-256 of
the reference, and each tensor's name and shape in the order of names), the rows' steps (uint16, little-endian) and the
levels (zlib). Nothing is kept from one body to the next: whoever has the reference reads any of them.

Sources: Alistarh et al. 2017 (QSGD: scaled levels, entropy-coded), Seide et al. 2014 (differences from what the other
side has). What else was tried stands in docs/adr/0011.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import DataInvalidError
from shared.contracts.training import TensorForm
from shared.tensors import (
    MAX_BYTES,
    MAX_HEADER,
    MAX_TENSORS,
    TensorSpec,
    check_tensors,
    is_shape,
    is_tensor_name,
)

Tensors = dict[str, NDArray[np.float32]]
MAGIC: Final = b"HVPACK1\n"
STEP: Final = 0.1
"""Of a row's root mean square: 3 % of the change is rounded away at 5.4 bits a value."""
USUAL_BITS: Final = 5.5
"""A value, with the rows' steps and the header: what a round's change takes."""
PRETRAINED: Final = "tail."
"""Begin of the names of a `CellModel`'s tensors that learn from a pretrained value."""
_FAMILY: Final = MAGIC[:6]
_MOST: Final = 127
"""The largest level; -128 is none, so that every level has its opposite."""
_UNSOUND: Final = "The packed tensors are damaged or not in the agreed form."
_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Reference:
    """What differences are taken from: fp32 tensors, and the hash by which both sides know that theirs are the same."""

    tensors: Mapping[str, NDArray[np.float32]]
    sha256: str

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.float32]]) -> Self:
        """Return ``tensors`` (fp32) as a reference."""
        whole = hashlib.sha256()
        for name in sorted(tensors):
            array = tensors[name]
            whole.update(f"{name}\0{array.shape}\0".encode())
            whole.update(np.ascontiguousarray(array, "<f4").data)
        return cls(tensors, whole.hexdigest())


def usual_bytes(half: int) -> int:
    """Return about how many bytes a round's tensors take packed that are ``half`` bytes long as fp16."""
    return round(half * USUAL_BITS / 16)


def pretrained(start: Mapping[str, NDArray[np.float32]]) -> Reference:
    """Return the reference of what is sent down: a fresh model's pretrained values, and zeros for all else.

    Centre and node have these without a message, and the same bits of them, for the base's SHA-256 is the same. What a
    fresh head and finder begin with is drawn, by a generator that promises no bits across machines.
    """
    return Reference.of(
        {name: array if name.startswith(PRETRAINED) else np.zeros_like(array) for name, array in start.items()}
    )


def check_body(body: bytes, form: TensorForm, *, max_bytes: int = MAX_BYTES) -> dict[str, TensorSpec]:
    """Return name → spec of the tensors in ``body``, by its header alone, whichever form it has.

    Raises:
        DataInvalidError: see `check_packed` and `shared.tensors.check_tensors`.
    """
    return (check_packed if form is TensorForm.PACKED else check_tensors)(body, max_bytes=max_bytes)


def is_packed(body: bytes) -> bool:
    """Whether ``body`` says of itself that it is packed, in whichever version."""
    return body.startswith(_FAMILY)


def pack(
    tensors: Mapping[str, NDArray[np.floating[Any]]],  # Any: fp16 or fp32
    reference: Reference,
    *,
    step: float = STEP,
) -> bytes:
    """Return ``tensors`` packed; their names and shapes are those of the reference.

    ``step``: of a level, as a share of the row's root mean square; twice as much saves a bit a value.

    Raises:
        DataInvalidError: other names or shapes, or a value that is not finite.
    """
    _check_same(tensors, reference)
    steps, levels = [], []
    for name in sorted(tensors):
        rows = _rows(tensors[name].astype(np.float64) - reference.tensors[name])
        if not np.isfinite(rows).all():
            raise DataInvalidError("The tensors hold values that are not finite; lower the learning rate.")
        coarse = np.maximum(step * np.sqrt(np.mean(rows**2, axis=1)), np.abs(rows).max(axis=1) / _MOST)
        steps.append(upper := _rounded_up(coarse))
        wide = _widened(upper).astype(np.float64)[:, None]
        levels.append(np.rint(np.divide(rows, wide, out=np.zeros_like(rows), where=wide > 0)).astype(np.int8))
    named = [[name, list(tensors[name].shape)] for name in sorted(tensors)]
    header = json.dumps({"reference": reference.sha256, "tensors": named}, separators=(",", ":")).encode()
    coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    coded = b"".join([*(coder.compress(part.tobytes()) for part in levels), coder.flush()])
    return b"".join([MAGIC, struct.pack("<I", len(header)), header, *(part.tobytes() for part in steps), coded])


def check_packed(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, TensorSpec]:
    """Return name → spec (fp32, as it is unpacked) of the tensors in ``body``, by its header alone.

    Raises:
        DataInvalidError: it is too large, of another version, or its header is not sound.
    """
    return _read(body, max_bytes).specs


def unpack(body: bytes, reference: Reference, *, max_bytes: int = MAX_BYTES) -> Tensors:
    """Return the tensors of a packed body; the same bits wherever it is read.

    Takes memory for the reference's values and no more, whatever ``body`` claims.

    Raises:
        DataInvalidError: as `check_packed`; it was packed against another reference; or its steps or levels are not
            what so many rows and values have.
    """
    read = _read(body, max_bytes)
    if read.specs != _specs(reference.tensors):
        raise DataInvalidError("The tensors' names or shapes are not those that were sent out.")
    if read.reference != reference.sha256:
        raise DataInvalidError(
            "The tensors were packed against others than are known here; install the same release on both sides."
        )
    levels = _levels(body[read.levels_at :], sum(array.size for array in reference.tensors.values()))
    steps = _widened(np.frombuffer(body, "<u2", offset=read.steps_at, count=read.rows))
    if not np.isfinite(steps).all() or (steps < 0).any():
        raise DataInvalidError(_UNSOUND)
    return dict(_unpacked(reference.tensors, steps, levels))


def _unpacked(
    reference: Mapping[str, NDArray[np.float32]], steps: NDArray[np.float32], levels: NDArray[np.int8]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    row = value = 0
    for name in sorted(reference):
        before = reference[name]
        rows = _rows(levels[value : value + before.size].reshape(before.shape))
        with np.errstate(over="ignore"):
            change = rows.astype(np.float32) * steps[row : row + len(rows), None]
            after = np.asarray(before + change.reshape(before.shape), np.float32)
        if not np.isfinite(after).all():
            raise DataInvalidError("The packed tensors hold values that are not finite.")
        yield name, after
        row += len(rows)
        value += before.size


@dataclass(frozen=True, slots=True)
class _Read:
    """A header that was read, and where the rest begins."""

    reference: str
    specs: dict[str, TensorSpec]
    rows: int
    steps_at: int
    levels_at: int


def _read(body: bytes, max_bytes: int) -> _Read:
    if len(body) > max_bytes:
        raise DataInvalidError(f"The tensors are larger than the {max_bytes // 1_048_576} MB allowed in a message.")
    if not body.startswith(MAGIC):
        other = "The tensors are packed by another version; update the older side's software."
        raise DataInvalidError(other if is_packed(body) else _UNSOUND)
    begin = len(MAGIC) + 4
    if len(body) < begin:
        raise DataInvalidError(_UNSOUND)
    (length,) = struct.unpack("<I", body[len(MAGIC) : begin])
    if length > min(MAX_HEADER, len(body) - begin):
        raise DataInvalidError(_UNSOUND)
    text = body[begin : begin + length]
    try:
        header = json.loads(text.decode())
        plain = json.dumps(header, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise DataInvalidError(_UNSOUND) from error
    if not isinstance(header, dict) or plain != text:
        raise DataInvalidError(_UNSOUND)  # written in one way only: no name twice, no two readings of a number
    specs, rows = _named(header)
    steps_at = begin + length
    return _Read(str(header["reference"]), specs, rows, steps_at, _within(body, steps_at + 2 * rows))


def _named(header: dict[str, object]) -> tuple[dict[str, TensorSpec], int]:
    """Return the specs, and the number of rows."""
    tensors, reference = header.get("tensors"), header.get("reference")
    if set(header) != {"reference", "tensors"} or not isinstance(tensors, list) or not isinstance(reference, str):
        raise DataInvalidError(_UNSOUND)
    if len(tensors) > MAX_TENSORS:
        raise DataInvalidError(f"A message may hold at most {MAX_TENSORS} tensors.")
    specs: dict[str, TensorSpec] = {}
    last = ""
    for entry in tensors:
        if not isinstance(entry, list) or len(entry) != 2:
            raise DataInvalidError(_UNSOUND)
        name, shape = entry
        if not is_tensor_name(name) or not is_shape(shape) or name <= last:
            raise DataInvalidError("A packed tensor's name, shape or place is none that a model's parameter has.")
        specs[name] = TensorSpec("F32", tuple(shape))
        last = name
    return specs, sum(_row_count(spec.shape) for spec in specs.values())


def _within(body: bytes, position: int) -> int:
    if position > len(body):
        raise DataInvalidError(_UNSOUND)
    return position


def _levels(coded: bytes, values: int) -> NDArray[np.int8]:
    """Return exactly ``values`` levels; decoding ends as soon as there are more."""
    decoder = zlib.decompressobj()
    try:
        plain = decoder.decompress(coded, values + 1)
    except zlib.error as error:
        raise DataInvalidError(_UNSOUND) from error
    if len(plain) != values or not decoder.eof or decoder.unused_data:
        raise DataInvalidError("The packed tensors have not as many values as were sent out.")
    levels = np.frombuffer(plain, np.int8)
    if (levels < -_MOST).any():
        raise DataInvalidError(_UNSOUND)
    return levels


def _check_same(tensors: Mapping[str, NDArray[np.floating[Any]]], reference: Reference) -> None:  # Any: see `pack`
    if _specs(tensors) != _specs(reference.tensors):
        raise DataInvalidError("The tensors' names or shapes are not those that were sent out.")


def _specs(tensors: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, TensorSpec]:  # Any: see `pack`
    return {name: TensorSpec("F32", array.shape) for name, array in tensors.items()}


def _row_count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1


def _rows(array: NDArray[_Kind]) -> NDArray[_Kind]:
    return array.reshape(_row_count(array.shape), -1)


def _rounded_up(steps: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return the upper halves of the next fp32 values that have no lower one."""
    bits = np.nextafter(steps.astype(np.float32), np.float32(np.inf), dtype=np.float32).view(np.uint32)
    return np.where(steps > 0, (bits + np.uint32(0xFFFF)) >> np.uint32(16), 0).astype("<u2")


def _widened(upper: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)
