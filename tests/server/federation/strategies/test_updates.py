"""What a site sends is checked before any strategy sees it."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from server.federation.strategies.build import build
from server.federation.strategies.port import Sent
from server.federation.strategies.registry import OFFERED, Parameters
from server.federation.strategies.updates import verify
from shared.contracts.errors import DataInvalidError

Half = type[np.float16] | type[np.float32]


def _body(value: float, shape: tuple[int, ...] = (2, 2), dtype: Half = np.float16) -> bytes:
    return bytes(save({"w": np.full(shape, value, dtype)}))


UNSOUND = [
    (_body(1), 0, 0),
    (_body(1), -5, 0),
    (_body(1), 10**9, 0),
    (_body(1), 10, -1),
    (_body(1, (4,)), 10, 0),
    (_body(float("nan")), 10, 0),
    (_body(float("inf")), 10, 0),
    (_body(1e5, dtype=np.float32), 10, 0),
    (bytes(save({"other": np.zeros((2, 2), np.float16)})), 10, 0),
    (b"", 10, 0),
]


@pytest.mark.parametrize("kind", OFFERED.values(), ids=lambda kind: kind.name)
def test_unsound_updates_are_refused_and_change_nothing(kind: type[Parameters], tmp_path: Path) -> None:
    sent = Sent.of(1, _body(0))
    aggregation = build(kind(), folder=tmp_path).begin(sent)
    clean = build(kind(), folder=tmp_path).begin(sent)
    for place in range(5):
        for target in (aggregation, clean):
            target.add(verify(f"s{place}", _body(2), sent, examples=10))
        for body, examples, boxes in UNSOUND:
            with pytest.raises(DataInvalidError):
                aggregation.add(verify("bad", body, sent, examples=examples, boxes=boxes))
    assert aggregation.close() == clean.close()
    assert aggregation.updates == clean.updates == 5
    np.testing.assert_array_equal(aggregation.result().tensors["w"], clean.result().tensors["w"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sound_update_is_returned_as_it_came(dtype: Half) -> None:
    sent = Sent.of(1, _body(0))
    update = verify("a", _body(1.5, dtype=dtype), sent, examples=3, boxes=2)
    assert (update.site, update.examples, update.boxes) == ("a", 3, 2)
    assert update.tensors["w"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(update.tensors["w"], np.full((2, 2), 1.5))
