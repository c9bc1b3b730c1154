"""Where the writers of an SQLite file stand in line, across threads and processes.

SQLite has no line: who waits for the write lock looks again after longer and longer pauses, up to a tenth of a second,
and whoever happens to ask just then goes first. With fifty readers some changes waited for a second that way.
"""

import fcntl
import os
import threading
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 10.0


class OutOfPatienceError(Exception):
    """Those before us have not ended in time."""


class Line:
    """The line for one file; a lock file beside it, ``…-line``, holds it between processes.

    The operating system takes a dead process out of the line.
    """

    def __init__(self, database: Path) -> None:
        self._file = database.with_name(f"{database.name}-line")
        self._here = threading.Lock()

    def enter(self) -> "Turn":
        """Wait until it is our turn.

        Raises:
            OutOfPatienceError: another thread of this process did not end within `PATIENCE_SECONDS`.
        """
        if not self._here.acquire(timeout=PATIENCE_SECONDS):
            raise OutOfPatienceError(f"Nobody could write for {PATIENCE_SECONDS:.0f} seconds.")
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self._here.release()
            raise
        turn = Turn(self._here, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            turn.leave()
            raise
        return turn


class Turn:
    """Our turn: to be left once, by whichever thread."""

    def __init__(self, here: threading.Lock, descriptor: int) -> None:
        self._here = here
        self._descriptor = descriptor

    def leave(self) -> None:
        """Let the next one write."""
        os.close(self._descriptor)  # other processes first: they wait longest
        self._here.release()
