"""Tells a full disk from every other fault: each library says it in its own way."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.contracts.errors import NoSpaceError

_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PRIMARY: Final = 0xFF
_MAYBE_FULL: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})
_LEAST_BYTES: Final = 128 * 1024
"""SQLite needs this much beside a database to open it: its write-ahead log's index and the log's first pages."""
_NO_SPACE: Final = (
    "No space is left on the disk of the node's home folder. Nothing was kept of this step: "
    "free some space or choose another home, then start it again."
)


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """Whether ``error``, or one that it came of, says that the disk under ``folder`` is full.

    SQLite says "disk is full" only for the database itself. Where the files beside it cannot be made it speaks of an
    I/O error or of a file that cannot be opened; then the disk is asked, if ``folder`` names it.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL_ERRNOS:
            return True
        if isinstance(seen, sqlite3.OperationalError) and _says_full(seen, folder):
            return True
        seen = seen.__cause__
    return False


def _says_full(error: sqlite3.OperationalError, folder: Path | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code not in _MAYBE_FULL or folder is None:
        return code == sqlite3.SQLITE_FULL
    try:
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return False


@contextmanager
def space_guard(folder: Path) -> Iterator[None]:
    """Turn every form of "disk full" under ``folder`` into `NoSpaceError`."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if is_disk_full(error, folder):
            raise NoSpaceError(_NO_SPACE) from error
        raise
