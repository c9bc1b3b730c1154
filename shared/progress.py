"""Progress of long work: a bar on a terminal, an occasional line elsewhere, nothing on stdout."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S: Final = 10.0


class Reporter:
    """Told how far the work is. Call it with ``(done, total)``, or `advance` it."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description = description
        self.total = total
        self.done = 0

    def __call__(self, done: int, total: int | None = None) -> None:
        """Say how much is done, and of how much where that is only known now."""
        self.done = done
        self.total = self.total if total is None else total
        self._show()

    def advance(self, by: int = 1) -> None:
        """Say that so much more is done."""
        self(self.done + by)

    def describe(self, description: str) -> None:
        """Say what is worked on now."""
        self.description = description
        self._show()

    def _show(self) -> None:
        """Show nothing; the two kinds below do."""


class _Bar(Reporter):
    def __init__(self, description: str, total: int | None, bar: Progress) -> None:
        super().__init__(description, total)
        self._bar = bar
        self._task = bar.add_task(description, total=total)

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.done, total=self.total, description=self.description)


class _Lines(Reporter):
    def __init__(self, description: str, total: int | None, stream: TextIO) -> None:
        super().__init__(description, total)
        self._stream = stream
        self._next = time.monotonic() + _LINE_EVERY_S
        self._started = time.monotonic()

    def _show(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._write(f"{self.done}" if self.total is None else f"{self.done} of {self.total}")

    def stopped(self) -> None:
        """Write the closing line of work that ended early; what went wrong at once is told by its error alone."""
        if time.monotonic() - self._started >= _LINE_EVERY_S:
            self.finish("stopped")

    def finish(self, word: str) -> None:
        """Write the closing line."""
        self._write(f"{word} after {time.monotonic() - self._started:.1f} s")

    def _write(self, text: str) -> None:
        self._stream.write(f"{self.description}: {text}\n")
        self._stream.flush()


@contextmanager
def progress(description: str, total: int | None = None, *, stream: TextIO | None = None) -> Iterator[Reporter]:
    """Show progress on stderr while the block runs, and yield the `Reporter` to tell it.

    On a terminal it is a bar that goes away at the end; elsewhere (a log file, CI) a line every ten seconds and one at
    the end, so that a quick piece of work leaves one line. ``total`` None: the amount is not known (yet).
    """
    stream = stream or sys.stderr
    console = Console(file=stream)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield _Bar(description, total, bar)
        return
    lines = _Lines(description, total, stream)
    try:
        yield lines
    except BaseException:
        lines.stopped()
        raise
    lines.finish("done")
