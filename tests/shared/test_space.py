"""A full disk is told from every other fault, however a library says it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.contracts.errors import NoSpaceError
from shared.space import is_disk_full, space_guard


def test_full_device_is_a_full_disk(tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(NoSpaceError, match="free some space"), space_guard(tmp_path):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_full_database_is_a_full_disk(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA max_page_count = 2")
        connection.execute("CREATE TABLE a (b BLOB)")
        with pytest.raises(NoSpaceError), space_guard(tmp_path):
            connection.execute("INSERT INTO a VALUES (zeroblob(100000))")


def test_database_that_cannot_be_opened_on_a_disk_with_room_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path)
    assert not is_disk_full(caught.value, tmp_path)


def test_cause_of_an_error_is_looked_at() -> None:
    error = RuntimeError("written by a library")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_disk_full(error)
    assert not is_disk_full(RuntimeError("another"))
