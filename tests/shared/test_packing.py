"""Packed tensors: what is lost, what it costs, and what is refused."""

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from shared.contracts.errors import DataInvalidError
from shared.packing import MAGIC, Reference, check_packed, is_packed, pack, pretrained, unpack, usual_bytes
from shared.tensors import TensorSpec

RANDOM = np.random.default_rng(0)
SHAPES: dict[str, tuple[int, ...]] = {"tail.0.weight": (64, 40, 1, 1), "tail.1.weight": (60,), "head.bias": ()}
BASE = Reference.of({name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()})


def moved(step: float = 1e-3) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.asarray(array + step * RANDOM.normal(size=array.shape), np.float32)
        for name, array in BASE.tensors.items()
    }


NEW = moved()
BODY = pack(NEW, BASE)
START = len(MAGIC) + 4


def parts() -> tuple[dict[str, object], bytes, bytes]:
    """Return the sound body's header, steps and levels."""
    (length,) = struct.unpack("<I", BODY[len(MAGIC) : START])
    rest = START + length
    return json.loads(BODY[START:rest]), BODY[rest : rest + 2 * 66], BODY[rest + 2 * 66 :]


def forged(header: object = None, steps: bytes | None = None, coded: bytes | None = None, *, text: str = "") -> bytes:
    """Return the sound body with some of its parts replaced."""
    sound, its_steps, its_coded = parts()
    written = (text or json.dumps(sound if header is None else header, separators=(",", ":"))).encode()
    return b"".join([
        MAGIC, struct.pack("<I", len(written)), written,
        its_steps if steps is None else steps, its_coded if coded is None else coded,
    ])  # fmt: skip


def test_usual_size_is_what_a_real_sized_change_takes() -> None:
    shape = (512, 1024)
    packed = pack(
        {"head.w": RANDOM.normal(size=shape).astype(np.float32)}, Reference.of({"head.w": np.zeros(shape, np.float32)})
    )
    assert usual_bytes(2 * 512 * 1024) == pytest.approx(len(packed), rel=0.03)


def test_a_row_loses_three_percent_of_what_changed_in_it() -> None:
    told = unpack(BODY, BASE)["tail.0.weight"].reshape(64, -1)
    before, after = (one["tail.0.weight"].reshape(64, -1) for one in (BASE.tensors, NEW))
    lost = np.linalg.norm(told - after, axis=1) / np.linalg.norm(after - before, axis=1)
    assert 0.02 < lost.mean() < 0.035
    assert lost.max() < 0.05


def test_a_value_costs_five_bits_and_a_half() -> None:
    wide = Reference.of({"w": RANDOM.normal(size=(400, 500)).astype(np.float32)})
    body = pack({"w": wide.tensors["w"] + RANDOM.normal(size=(400, 500)).astype(np.float32)}, wide)
    assert 5.2 < 8 * len(body) / 200_000 < 5.6


def test_what_did_not_change_is_told_exactly_and_costs_a_bit() -> None:
    body = pack(BASE.tensors, BASE)
    told = unpack(body, BASE)
    assert all(np.array_equal(told[name], array) for name, array in BASE.tensors.items())
    assert len(body) < 2620 / 8 + 400


def test_one_value_far_beyond_its_row_is_told() -> None:
    zero = Reference.of({"w": np.zeros((1, 4000), np.float32)})
    spike = np.zeros((1, 4000), np.float32)
    spike[0, 7] = 3.0
    assert unpack(pack({"w": spike}, zero), zero)["w"][0, 7] == pytest.approx(3.0, rel=0.01)


@settings(max_examples=100, deadline=None)
@given(
    before=arrays(np.float32, array_shapes(max_dims=3, max_side=6), elements=st.floats(-1e4, 1e4, width=32)),
    data=st.data(),
)
def test_no_value_is_off_by_more_than_half_its_rows_step(before: NDArray[np.float32], data: st.DataObject) -> None:
    after = data.draw(arrays(np.float32, before.shape, elements=st.floats(-1e4, 1e4, width=32)))
    reference = Reference.of({"w": before})
    told = unpack(pack({"w": after}, reference), reference)["w"]
    rows = (len(before), -1) if before.ndim > 1 else (1, -1)
    change = (after.astype(np.float64) - before).reshape(rows)
    largest = np.abs(change).max(axis=1, keepdims=True)
    step = np.maximum(0.1 * np.sqrt((change**2).mean(axis=1, keepdims=True)), largest / 127) * (1 + 2**-6)
    rounding = 4 * np.spacing(np.maximum(np.abs(before), np.abs(after)).astype(np.float32)).reshape(rows)
    smallest = 1e-40  # below it a step has no upper half
    assert (np.abs(told.astype(np.float64) - after).reshape(rows) <= step / 2 + rounding + smallest).all()


def test_both_sides_read_the_same_bits_and_any_body_stands_alone() -> None:
    later = pack(moved(5e-3), BASE)
    copied = Reference.of({name: array.copy(order="F") for name, array in BASE.tensors.items()})
    alone = unpack(later, copied)  # `BODY`, packed before it, was never read here
    unpack(BODY, BASE)
    assert all(np.array_equal(unpack(later, BASE)[name], array) for name, array in alone.items())
    assert copied.sha256 == BASE.sha256
    assert pack(NEW, copied) == BODY


def test_reference_is_what_was_pretrained_and_nothing_that_was_drawn() -> None:
    found = pretrained(BASE.tensors).tensors
    assert np.array_equal(found["tail.1.weight"], BASE.tensors["tail.1.weight"])
    assert found["head.bias"] == 0


def test_header_names_what_is_inside() -> None:
    assert is_packed(BODY)
    assert check_packed(BODY) == {name: TensorSpec("F32", shape) for name, shape in SHAPES.items()}


def test_another_reference_is_told_apart() -> None:
    other = Reference.of({name: array + np.float32(1e-6) for name, array in BASE.tensors.items()})
    with pytest.raises(DataInvalidError, match="packed against others"):
        unpack(BODY, other)


def test_another_version_says_whose_software_to_update() -> None:
    with pytest.raises(DataInvalidError, match="another version; update"):
        check_packed(BODY.replace(MAGIC, b"HVPACK2\n"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_not_packed(wrong: float) -> None:
    with pytest.raises(DataInvalidError, match="not finite"):
        pack({**NEW, "head.bias": np.array(wrong, np.float32)}, BASE)


def test_other_names_or_shapes_are_not_packed() -> None:
    with pytest.raises(DataInvalidError, match="names or shapes"):
        pack({**NEW, "more": np.zeros(3, np.float32)}, BASE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        MAGIC,
        MAGIC + b"\xff\xff\xff\xff",
        MAGIC + struct.pack("<I", 60_000) + b"[" * 60_000,
        forged(text="[1]"),
        forged(text='{"reference":"","tensors":NaN}'),
        forged(text='{"reference":"","tensors":[], "more":1}'),
        forged(text='{"reference":"","tensors":[],"tensors":[]}'),
        forged({"reference": "", "tensors": [["b", [1]], ["a", [1]]]}),
        forged({"reference": "", "tensors": [["a", [1]], ["a", [1]]]}),
        forged({"reference": "", "tensors": [["../a", [1]]]}),
        forged({"reference": "", "tensors": [["a", [0]]]}),
        forged({"reference": "", "tensors": [["a", [-1]]]}),
        forged({"reference": "", "tensors": [["a", [True]]]}),
        forged({"reference": "", "tensors": [["a", [1] * 9]]}),
        forged({"reference": "", "tensors": [["a", [2**31, 2**31]]]}),
        forged({"reference": 3, "tensors": []}),
        forged({"reference": "", "tensors": [[["a"], [1]]]}),
        forged({"reference": "", "tensors": {"a": [1]}}),
    ],
)
def test_unsound_header_is_refused(body: bytes) -> None:
    with pytest.raises(DataInvalidError):
        check_packed(body)


@pytest.mark.parametrize(
    "body",
    [
        forged(coded=b""),
        forged(coded=b"no zlib"),
        forged(coded=zlib.compress(bytes(2620))),
        forged(coded=zlib.compress(bytes(2622))),
        forged(coded=zlib.compress(bytes(2621)) + b"more"),
        forged(coded=zlib.compress(bytes(2621))[:-1]),
        forged(coded=zlib.compress(b"\x80" + bytes(2620))),
        forged(steps=b""),
        forged(steps=b"\xff\x7f" * 66),
        forged(steps=b"\x80\x7f" * 66),
        forged(steps=b"\x00\xbf" * 66),
        forged(steps=b"\x7f\x7f" * 66),
        BODY + b"more",
    ],
)
def test_unsound_steps_or_levels_are_refused(body: bytes) -> None:
    with pytest.raises(DataInvalidError):
        unpack(body, BASE)


def test_a_bomb_is_not_blown_up() -> None:
    bomb = forged(coded=zlib.compress(bytes(200_000_000), 9))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(DataInvalidError, match="as many values"):
            unpack(bomb, BASE)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_too_large_a_body_is_refused_unread() -> None:
    with pytest.raises(DataInvalidError, match="larger"):
        unpack(BODY, BASE, max_bytes=len(BODY) - 1)


@settings(max_examples=500, deadline=None)
@given(place=st.integers(0, len(BODY) - 1), changed=st.binary(min_size=0, max_size=4), dropped=st.integers(0, 4))
def test_any_damage_is_refused_or_read_as_finite_tensors(place: int, changed: bytes, dropped: int) -> None:
    body = BODY[:place] + changed + BODY[place + dropped :]
    try:
        told = unpack(body, BASE)
    except DataInvalidError:
        return
    assert {name: array.shape for name, array in told.items()} == SHAPES
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in told.values())
