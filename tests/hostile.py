"""What a hostile party sends: JSON of wrong types and sizes, messages half right, tensors whose headers lie."""

import copy
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save

Json = Any  # JSON in, JSON out

_NUMBERS = st.sampled_from(
    [-1, 0, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, float("nan"), float("inf"), float("-inf"), True]
)
_TEXTS = st.sampled_from(
    ["", "../../etc/passwd", "/dev/zero", "a\x00b", "<script>", "'; DROP TABLE run; --", "\u202e", "nan", "x" * 5000]
) | st.text(max_size=20)
_SCALARS = st.none() | st.booleans() | _NUMBERS | _TEXTS
VALUES: st.SearchStrategy[Json] = (
    st.builds(list[Json])
    | st.builds(dict[str, Json])
    | st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
    | st.builds(lambda value, count: [value] * count, _SCALARS, st.sampled_from([0, 65, 5000]))
)
DEEP = st.sampled_from(["[" * 30_000, '{"a":' * 5_000, "[" * 100 + "]" * 100, '"' * 1000, "1" * 6000, "\ufeff{}"])


@st.composite
def mutated(draw: st.DrawFn, sound: Json) -> Json:
    """Return ``sound`` with up to two places, anywhere in it, changed, removed or added to."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        places = list(_places(value))
        if places:
            _change(draw, *draw(st.sampled_from(places)))
    return value


def _places(value: Json) -> Iterator[tuple[Json, Json]]:
    """Yield every container below ``value`` with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _change(draw: st.DrawFn, at: Json, key: Json) -> None:
    match draw(st.sampled_from(["change", "change", "change", "remove", "add"])):
        case "change":
            at[key] = copy.deepcopy(draw(VALUES))
        case "remove":
            del at[key]
        case "add" if isinstance(at, dict):
            at[draw(st.text(max_size=10))] = copy.deepcopy(draw(VALUES))
        case _:
            at.append(copy.deepcopy(draw(VALUES)))


def texts(sound: Json) -> st.SearchStrategy[str]:
    """Return texts that are JSON like ``sound``, other JSON, or none at all."""
    return st.one_of(
        mutated(sound).map(json.dumps),
        mutated(sound).map(json.dumps),
        mutated(sound).map(json.dumps),
        VALUES.map(json.dumps),
        st.text(max_size=200),
        DEEP,
    )


def packed(header: Json, data: bytes, length: int | None = None) -> bytes:
    """Return a safetensors body with any header, and a header length that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@st.composite
def bodies(draw: st.DrawFn, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Return tensors of these names and shapes, sound or not, or bytes that are none."""
    kind = draw(st.sampled_from(["sound", "values", "header", "header", "header", "bytes"]))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    values = draw(st.sampled_from([0.0, 1.5, -65504.0, 3e38, float("nan"), float("inf")])) if kind == "values" else 0.25
    with np.errstate(over="ignore"):
        sound = bytes(save({name: np.full(shape, values, dtype) for name, shape in shapes.items()}))
    if kind in ("sound", "values"):
        return sound
    if kind == "bytes":
        place = draw(st.integers(0, len(sound) - 1))
        return draw(st.sampled_from([sound[:place], sound[:place] + b"\xff" + sound[place + 1 :], sound + b"\x00"]))
    (length,) = struct.unpack("<Q", sound[:8])
    header, data = json.loads(sound[8 : 8 + length]), sound[8 + length :]
    lies = draw(st.sampled_from([None, None, None, None, None, 0, length - 1, 2**63, 2**64 - 1]))
    return packed(draw(mutated(header)), data, lies)


def worst_headers() -> list[bytes]:
    """Return bodies whose headers cost a reader the most memory for their bytes."""
    return [
        packed(b'{"a":[' + b"[]," * 340_000 + b"[]]}", b""),
        packed(b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}", b""),
        packed(b'{"a":' + b"[" * 1_000_000, b""),
        packed(b'{"a":"' + b"x" * 1_000_000 + b'"}', b""),
        packed(b'{"a":[' + b"0," * 500_000 + b"0]}", b""),
        packed(b'{"a":{"dtype":"F16","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,2]}}', b"12"),
        packed(b'{"a":{"dtype":"F16","shape":[2147483648,2147483648],"data_offsets":[0,1099511627775]}}', b"12"),
        packed(b"{}", b"", 2**64 - 1),
    ]
