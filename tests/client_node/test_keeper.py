"""A child without one of its parts is started again, and one whose parts live is left alone."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from client_node import keeper as module
from client_node.keeper import Keeper
from shared.processes import Service

_PART = "part-of-the-child"
_CHILD = f"""
import pathlib, signal, subprocess, sys, time
def leave(*_):
    pathlib.Path(sys.argv[1]).touch()
    sys.exit()
signal.signal(signal.SIGTERM, leave)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "-".join({_PART.split("-")})])
time.sleep(600)
"""


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    argv = [sys.executable, "-c", _CHILD, str(tmp_path / "left")]
    made = Keeper(
        "child", lambda: Service("child", argv, log_path=tmp_path / "child.log"), ready=lambda: True, parts=(_PART,)
    )
    yield made
    made.stop()


def part(keeper: Keeper) -> psutil.Process | None:
    """Return the part that is alive, once the keeper has had time to look."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        keeper.tick()
        below = keeper._service.processes() if keeper._service is not None else []
        for process in below:
            with suppress(psutil.Error):  # it may be ending
                if _PART in process.cmdline()[-1:]:
                    return process
        time.sleep(0.05)
    return None


def test_a_child_that_lost_a_part_takes_its_leave_and_is_started_again(keeper: Keeper, tmp_path: Path) -> None:
    first = part(keeper)
    assert first is not None
    for _ in range(5):
        keeper.tick()
        time.sleep(0.06)
    assert first.is_running()
    assert keeper.problem == ""
    assert not (tmp_path / "left").exists()
    first.kill()
    time.sleep(0.1)
    for _ in range(5):
        keeper.tick()
        time.sleep(0.06)
    second = part(keeper)
    assert second is not None
    assert second.pid != first.pid
    assert keeper.problem == f"child was started again: its {_PART} had ended"
    assert (tmp_path / "left").exists()
