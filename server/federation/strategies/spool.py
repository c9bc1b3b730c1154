"""Updates that a strategy must see side by side lie on disk; memory holds a strip of columns of all of them."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import NoSpaceError

MAX_BYTES: Final = 16 * 1024**3
"""Most that one spool takes on disk: 800 updates of 5 million values. What comes then is refused, with a sentence."""
STRIP_BYTES: Final = 16 * 1024**2
"""Most that `strips` holds in memory at a time, whatever the number of updates."""
_ITEM: Final = 4


class Spool:
    """N updates of ``width`` fp32 values each, as the rows of a file without a name: it is gone with the process."""

    def __init__(self, width: int, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.width = width
        self.rows = 0
        # Lives as long as the spool, which outlives this function: closed by `finalize`, also when a run breaks off.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def append(self, parts: Iterable[NDArray[np.float32]]) -> None:
        """Add a row, given as consecutive arrays of any shape.

        Raises:
            NoSpaceError: the bound is reached or the disk is full; the spool is as it was.
        """
        begin = self.rows * self._row_bytes
        if begin + self._row_bytes > MAX_BYTES:
            raise NoSpaceError(
                f"The centre holds no more than {self.rows} updates of this size side by side; choose a strategy that"
                " averages them as they come."
            )
        try:
            self._write(begin, parts)
        except OSError as error:
            os.truncate(self._file.fileno(), begin)
            raise NoSpaceError("The centre's disk has no room for the round's updates; free some of it.") from error
        self.rows += 1

    def drop(self) -> None:
        """Take the last row away; the next one is written over it."""
        self.rows -= 1

    def strips(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield (columns, N × len(columns)) from left to right; at least one row must be there."""
        step = max(1, STRIP_BYTES // (_ITEM * self.rows))
        for start in range(0, self.width, step):
            columns = slice(start, min(start + step, self.width))
            yield columns, np.stack([self._read(row, columns) for row in range(self.rows)])

    @property
    def _row_bytes(self) -> int:
        return self.width * _ITEM

    def _write(self, position: int, parts: Iterable[NDArray[np.float32]]) -> None:
        for part in parts:
            left = memoryview(np.ascontiguousarray(part, np.float32).tobytes())
            while left:
                written = os.pwrite(self._file.fileno(), left, position)
                position, left = position + written, left[written:]

    def _read(self, row: int, columns: slice) -> NDArray[np.float32]:
        size = (columns.stop - columns.start) * _ITEM
        return np.frombuffer(
            os.pread(self._file.fileno(), size, row * self._row_bytes + columns.start * _ITEM), np.float32
        )
