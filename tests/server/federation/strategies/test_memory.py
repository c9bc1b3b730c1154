"""The centre's memory does not grow with the number of hospitals."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from server.federation.strategies import spool
from server.federation.strategies.build import build
from server.federation.strategies.port import Sent
from server.federation.strategies.registry import OFFERED, Parameters
from server.federation.strategies.updates import verify

STREAMING = [kind for kind in OFFERED.values() if kind.streams]
COMPARING = [kind for kind in OFFERED.values() if not kind.streams]
WIDTH = 50_000


def _peak(kind: type[Parameters], folder: Path, *, updates: int) -> int:
    """Return the most bytes a round of so many updates takes."""
    random = np.random.default_rng(0)
    body, *changed = (
        bytes(save({name: random.normal(size=WIDTH).astype(np.float16) for name in ("head.w", "finder.w")}))
        for _ in range(6)
    )
    strategy = build(kind(), folder=folder)
    tracemalloc.start()
    try:
        sent = Sent.of(1, body)
        aggregation = strategy.begin(sent)
        for place in range(updates):
            # A body of its own each time, as from the wire: what is kept of it shows.
            aggregation.add(verify(str(place), bytes(bytearray(changed[place % 5])), sent, examples=10, boxes=1))
        aggregation.close()
        aggregation.result()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", STREAMING, ids=lambda kind: kind.name)
def test_two_hundred_updates_take_what_ten_take(kind: type[Parameters], tmp_path: Path) -> None:
    assert _peak(kind, tmp_path, updates=200) <= 1.05 * _peak(kind, tmp_path, updates=10)


@pytest.mark.parametrize("kind", COMPARING, ids=lambda kind: kind.name)
def test_updates_that_are_compared_lie_on_disk(
    kind: type[Parameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "STRIP_BYTES", 200_000)
    few, many = _peak(kind, tmp_path, updates=10), _peak(kind, tmp_path, updates=60)
    assert many <= few + 5 * spool.STRIP_BYTES
    assert many - few < 50 * 2 * 4 * WIDTH / 10  # a tenth of what 50 more would take in memory
    assert not list(tmp_path.iterdir())  # the files have no names: nothing is left of a killed process
