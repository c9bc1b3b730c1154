"""Writers of an SQLite file go one after another, across threads and processes."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server.db import line
from server.db.line import Line, OutOfPatienceError

_HOLDER = """
import sys
from pathlib import Path
from server.db.line import Line
turn = Line(Path(sys.argv[1])).enter()
print("in", flush=True)
sys.stdin.readline()
turn.leave()
sys.stdin.readline()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "centre.sqlite"


def held_elsewhere(database: Path) -> subprocess.Popen[str]:
    """Return a process whose turn it is."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(database)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def entered(database: Path) -> tuple[threading.Thread, threading.Event]:
    """Return a thread that takes a turn and leaves, and what it sets in between."""
    inside = threading.Event()

    def take() -> None:
        turn = Line(database).enter()
        inside.set()
        turn.leave()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, inside


def test_a_turn_is_waited_for_until_another_process_leaves_it(database: Path) -> None:
    with held_elsewhere(database) as other:
        thread, inside = entered(database)
        assert not inside.wait(0.2)
        assert other.stdin is not None
        other.stdin.write("leave\n")
        other.stdin.flush()
        assert inside.wait(10)
        thread.join()
        other.stdin.close()


def test_a_killed_process_is_out_of_the_line(database: Path) -> None:
    with held_elsewhere(database) as other:
        thread, inside = entered(database)
        other.send_signal(signal.SIGKILL)
        assert inside.wait(10)
        thread.join()


def test_a_turn_may_be_left_by_another_thread_than_took_it(database: Path) -> None:
    waiting = Line(database)
    turn = waiting.enter()
    threading.Thread(target=turn.leave).start()
    waiting.enter().leave()


def test_who_waits_in_vain_is_told_and_the_line_goes_on(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "PATIENCE_SECONDS", 0.05)
    waiting = Line(database)
    turn = waiting.enter()
    with pytest.raises(OutOfPatienceError, match="Nobody could write"):
        waiting.enter()
    turn.leave()
    waiting.enter().leave()


def test_no_turn_is_kept_where_the_lock_file_cannot_be_made(tmp_path: Path) -> None:
    waiting = Line(tmp_path / "later" / "centre.sqlite")
    with pytest.raises(FileNotFoundError):
        waiting.enter()
    (tmp_path / "later").mkdir()
    waiting.enter().leave()
