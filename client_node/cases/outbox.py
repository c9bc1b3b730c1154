"""The durable outbox: which cases wait to be sent, which of their parts have left, and where each stands."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from client_node.cases.bundle import Part
from client_node.cases.pseudonym import new_case_id
from client_node.home import NodeHome
from shared.contracts.case import ClinicalContext, Priority
from shared.contracts.errors import ConfigError, NoSpaceError, NotFoundError
from shared.space import is_disk_full

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outgoing (
    case_id TEXT PRIMARY KEY, smear_id TEXT NOT NULL UNIQUE, priority TEXT NOT NULL, context TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_try_at TEXT NOT NULL, problem TEXT,
    created_at TEXT NOT NULL, changed_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS part (
    case_id TEXT NOT NULL REFERENCES outgoing(case_id), position INTEGER NOT NULL, name TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, uploaded INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (case_id, name)
) STRICT;
"""
_COLUMNS: Final = "case_id, smear_id, priority, context, state, attempts, next_try_at, problem, created_at, changed_at"
_RANK: Final = "CASE priority WHEN 'stat' THEN 0 WHEN 'urgent' THEN 1 ELSE 2 END"
_FIRST_DELAY: Final = 2.0
_LONGEST_DELAY: Final = 300.0


class SendState(StrEnum):
    """Where a case stands on its way out."""

    QUEUED = "queued"
    PACKED = "packed"
    UPLOADED = "uploaded"
    COMMITTED = "committed"
    RECEIVED = "received"
    QUARANTINED = "quarantined"


OPEN: Final = (SendState.QUEUED, SendState.PACKED, SendState.UPLOADED, SendState.COMMITTED)


class Outgoing(BaseModel):
    """A case in the outbox."""

    model_config = ConfigDict(frozen=True)

    case_id: str
    smear_id: str
    priority: Priority
    context: ClinicalContext
    state: SendState
    attempts: int
    next_try_at: datetime
    problem: str | None
    created_at: datetime
    changed_at: datetime


class Outbox:
    """The outbox of the node in ``home``; safe to open from several processes. A smear becomes one case, ever."""

    def __init__(self, home: NodeHome | Path) -> None:
        self._file = NodeHome(home).outbox

    def enqueue(
        self, *, smear_id: str, priority: Priority, context: ClinicalContext, case_id: str | None = None
    ) -> tuple[Outgoing, bool]:
        """Put a smear in; return its case and whether it is new (else it was put in before)."""
        now = datetime.now(UTC).isoformat()
        with self._open() as connection:
            new = connection.execute(
                f"INSERT OR IGNORE INTO outgoing ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 0, ?, NULL, ?, ?)",
                (
                    case_id or new_case_id(), smear_id, priority.value, context.model_dump_json(),
                    SendState.QUEUED.value, now, now, now,
                ),
            ).rowcount  # fmt: skip
        found = self.of_smear(smear_id)
        if found is None:
            raise ConfigError("The outbox did not keep the case: check outbox.sqlite and send it again.")
        return found, bool(new)

    def of_smear(self, smear_id: str) -> Outgoing | None:
        """Return the case that a smear became."""
        return self._one("smear_id", smear_id)

    def get(self, case_id: str) -> Outgoing:
        """Return a case, or raise `NotFoundError`."""
        found = self._one("case_id", case_id)
        if found is None:
            raise NotFoundError(f"This node has sent no case {case_id}.")
        return found

    def due(self, now: datetime | None = None) -> list[Outgoing]:
        """Return open cases whose time has come, most urgent first."""
        moment = (now or datetime.now(UTC)).isoformat()
        marks = ", ".join("?" for _ in OPEN)
        where = f"WHERE state IN ({marks}) AND next_try_at <= ?"
        return self._many(f"SELECT {_COLUMNS} FROM outgoing {where} ORDER BY {_RANK}, created_at", (*OPEN, moment))

    def all(self, limit: int = 200) -> list[Outgoing]:
        """Return the newest cases."""
        return self._many(f"SELECT {_COLUMNS} FROM outgoing ORDER BY created_at DESC LIMIT ?", (limit,))

    def waiting(self) -> int:
        """Return how many cases the centre does not have yet."""
        marks = ", ".join("?" for _ in OPEN)
        with self._open() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM outgoing WHERE state IN ({marks})", OPEN).fetchone()
        return int(count)

    def packed(self, case_id: str, parts: Sequence[Part]) -> None:
        """Note that the parcel is made, and of what."""
        with self._open() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO part (case_id, position, name, sha256, size) VALUES (?, ?, ?, ?, ?)",
                [(case_id, position, part.name, part.sha256, part.size) for position, part in enumerate(parts)],
            )
            _move(connection, case_id, SendState.PACKED)

    def missing(self, case_id: str) -> list[Part]:
        """Return the parts that have not left yet, in sending order."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT name, sha256, size FROM part WHERE case_id = ? AND NOT uploaded ORDER BY position", (case_id,)
            ).fetchall()
        return [Part(*row) for row in rows]

    def cells_sent(self, case_id: str) -> int:
        """Return how many cells the case had when it was packed."""
        with self._open() as connection:
            sql = "SELECT count(*) FROM part WHERE case_id = ? AND name LIKE 'blobs/cell-%'"
            return int(connection.execute(sql, (case_id,)).fetchone()[0])

    def uploaded(self, case_id: str, name: str) -> None:
        """Note that a part has arrived."""
        with self._open() as connection:
            connection.execute("UPDATE part SET uploaded = 1 WHERE case_id = ? AND name = ?", (case_id, name))

    def move(self, case_id: str, state: SendState, *, problem: str | None = None) -> None:
        """Note a step forward; it clears the count of failures."""
        with self._open() as connection:
            _move(connection, case_id, state, problem)

    def failed(self, case_id: str, problem: str) -> None:
        """Note a failure: the next try comes later, each time twice as late, and at most five minutes."""
        with self._open() as connection:
            (attempts,) = connection.execute("SELECT attempts FROM outgoing WHERE case_id = ?", (case_id,)).fetchone()
            delay = min(_FIRST_DELAY * 2.0 ** min(attempts, 10), _LONGEST_DELAY)
            later = (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()
            connection.execute(
                "UPDATE outgoing SET attempts = attempts + 1, next_try_at = ?, problem = ? WHERE case_id = ?",
                (later, problem, case_id),
            )

    def _one(self, column: str, value: str) -> Outgoing | None:
        found = self._many(f"SELECT {_COLUMNS} FROM outgoing WHERE {column} = ?", (value,))
        return found[0] if found else None

    def _many(self, sql: str, values: tuple[object, ...]) -> list[Outgoing]:
        with self._open() as connection:
            rows = connection.execute(sql, values).fetchall()
        return [_outgoing(row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._file.touch(mode=0o600)
            with closing(sqlite3.connect(self._file, timeout=30.0)) as connection, connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
                yield connection
        except (OSError, sqlite3.OperationalError) as error:
            if is_disk_full(error, self._file.parent):
                raise NoSpaceError("No space is left for the outbox: make room, then send again.") from None
            raise ConfigError("The outbox cannot be opened: check the home folder and its permissions.") from error


def _move(connection: sqlite3.Connection, case_id: str, state: SendState, problem: str | None = None) -> None:
    now = datetime.now(UTC).isoformat()
    connection.execute(
        "UPDATE outgoing SET state = ?, attempts = 0, problem = ?, next_try_at = ?, changed_at = ? WHERE case_id = ?",
        (state.value, problem, now, now, case_id),
    )


def _outgoing(row: tuple[object, ...]) -> Outgoing:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Outgoing.model_validate({**values, "context": ClinicalContext.model_validate_json(str(values["context"]))})
