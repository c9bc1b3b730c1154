"""Run one program so that nothing of it outlives its launcher, not even a launcher killed with SIGKILL.

``python -I -S guard.py LIFELINE GRACE CLEANUP… -- ARGV…``: it stays between launcher and program. It ends
the program and every descendant (also those in sessions of their own: as a subreaper it inherits them) when
it gets SIGTERM, when the lifeline (a pipe whose other end only the launcher holds) closes, or when the
program ends; then it removes the CLEANUP files. The program itself dies with the guard (PR_SET_PDEATHSIG).
Standard library only: it must start in milliseconds and work without our packages.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status as a shell would."""
    split = arguments.index("--")
    lifeline, grace, cleanup = int(arguments[0]), float(arguments[1]), arguments[2:split]
    stop_r, stop_w = os.pipe()
    os.set_blocking(stop_w, False)
    signal.set_wakeup_fd(stop_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    # A Ctrl-C belongs to the launcher, which then stops us in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    launcher = os.getppid()
    program = _spawn(arguments[split + 1 :], lifeline)
    try:
        return _watch(program, lifeline, stop_r, launcher, grace)
    finally:
        _sweep()
        for path in cleanup:
            with contextlib.suppress(OSError):
                Path(path).unlink()


def _spawn(argv: list[str], lifeline: int) -> int:
    guard = os.getpid()
    program = os.fork()
    if program:
        return program
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.close(lifeline)
        if _LINUX:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)
        os.execvp(argv[0], argv)  # noqa: S606 - a list of arguments, never a shell's string
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(program: int, lifeline: int, stop_r: int, launcher: int, grace: float) -> int:
    deadline = float("inf")
    while True:
        ended = _reap(program)
        if ended is not None:
            return ended
        if time.monotonic() > deadline:
            os.kill(program, signal.SIGKILL)
        waiting = deadline == float("inf")
        ready, _, _ = select.select([stop_r, lifeline] if waiting else [stop_r], [], [], 2.0 if waiting else 0.2)
        asked = stop_r in ready and signal.SIGTERM in os.read(stop_r, 64)
        if waiting and (asked or lifeline in ready or os.getppid() != launcher):
            deadline = time.monotonic() + grace
            os.kill(program, signal.SIGTERM)


def _reap(program: int) -> int | None:
    """Collect every child that has ended; return the program's status once it is among them."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            result = code if code >= 0 else 128 - code


def _sweep() -> None:
    """End what the program left behind: politely for a second, then not."""
    deadline = time.monotonic() + 1.0
    polite = True
    while left := _descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if polite else signal.SIGKILL)
        polite = False
        while time.monotonic() < deadline and _descendants(os.getpid()):
            _reap(0)
            time.sleep(0.02)
        _reap(0)
        time.sleep(0.01)
    _reap(0)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name is in parentheses and may hold anything; state and parent follow it.
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
