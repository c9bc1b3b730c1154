"""The database: one engine a process, one transaction a request or task, committed only here."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool
from sqlmodel import Session

from server.db.line import Line, OutOfPatienceError, Turn

_READ_ONLY = "hematovision_read_only"
_TURN = "hematovision_turn"


def engine_for(url: str) -> Engine:
    """Return an engine for ``url``: SQLite set up to be safe with several processes, or PostgreSQL by psycopg 3."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(url, in_memory=parsed.database in {None, "", ":memory:"})
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)


def _sqlite_engine(url: str, *, in_memory: bool) -> Engine:
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {"pool_size": 10, "max_overflow": 30}
    # Errors end up in logs; the values of a statement are patients' pseudonyms, hashes and readers' words.
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 10}, hide_parameters=True, **pool)
    file = engine.url.database or ""
    line, log = None if in_memory else Line(Path(file)), Path(f"{file}-wal")

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would otherwise begin transactions on its own, too late and never IMMEDIATE.
        connection.isolation_level = None
        for pragma in ("busy_timeout=10000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        # With the log, `_on_disk` does what FULL would do while nobody else can write.
        connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once when another has written in between, however
        # long the busy timeout: so writers take the write lock at the start.
        if connection.get_execution_options().get(_READ_ONLY, False):
            connection.exec_driver_sql("BEGIN")
            return
        if line is not None:
            connection.info[_TURN] = _turn(line)
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    # Also where BEGIN has failed, and after a rollback: what was borrowed of the pool comes back to it.
    @event.listens_for(engine, "checkin")
    def leave(_connection: object, record: ConnectionPoolEntry) -> None:
        turn = record.info.pop(_TURN, None)
        if turn is not None:
            turn.leave()
            _on_disk(log)

    return engine


def _on_disk(log: Path) -> None:
    """Return when what was committed is safe from a power cut: before anybody is told of it, but while others write.

    Waiting for the disk was a third of the time for which a change held up the others; several are waited for at once.
    """
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # merged into the database, and that is on disk
        return
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _turn(line: Line) -> Turn:
    try:
        return line.enter()
    except OutOfPatienceError as error:
        # What SQLite itself says of a lock that stays.
        raise OperationalError("BEGIN IMMEDIATE", None, sqlite3.OperationalError(str(error))) from None


class KeepsChangesError(Exception):
    """Mixed into an error that does not undo its transaction: a counted failed sign-in must stay counted."""


class Database:
    """An engine and the only place where transactions begin and end."""

    def __init__(self, url: str) -> None:
        self.engine = engine_for(url)
        self._reading = self.engine.execution_options(**{_READ_ONLY: True})

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """Yield a session that is one transaction: commit at exit, roll back on an error
        (except `KeepsChangesError`).

        ``read_only`` takes no write lock on SQLite: for work that only reads, or writes nothing that must succeed.
        """
        with Session(self._reading if read_only else self.engine, expire_on_commit=False) as session:
            try:
                yield session
            except KeepsChangesError:
                session.commit()
                raise
            session.commit()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
