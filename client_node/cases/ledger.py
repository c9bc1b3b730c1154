"""The ledger: every byte that left the building, append-only, in a hash chain. Import-light: the relay uses it."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from client_node.home import NodeHome
from shared.contracts.enrolment import LedgerTotals
from shared.contracts.errors import AuditBrokenError, ConfigError, HematovisionError, NoSpaceError
from shared.space import is_disk_full

GENESIS: Final = "0" * 64
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, what TEXT NOT NULL,
    size INTEGER NOT NULL, sha256 TEXT NOT NULL, note TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entry_kind ON entry(kind, at);
CREATE TRIGGER IF NOT EXISTS entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""
_LONGEST_NOTE: Final = 400
_COLUMNS: Final = "number, at, kind, subject, what, size, sha256, note, previous, hash"


class LedgerEntry(BaseModel):
    """One thing that left (or, for a refusal, did not)."""

    model_config = ConfigDict(frozen=True)

    number: int
    at: datetime
    kind: str
    """``case`` (a part of one), ``update`` (a training reply), ``answer`` (whether it would train), ``enrolment``,
    ``refusal`` (nothing but the refusal left), ``base`` (pretrained weights came in, and nothing left)."""
    subject: str
    """Case id, run key or the like; never a patient."""
    what: str
    """Which part, e.g. ``blobs/field-0.jpg``."""
    size: int
    """Bytes that left."""
    sha256: str
    note: str
    previous: str
    hash: str

    def expected_hash(self) -> str:
        """What ``hash`` must be: SHA-256 over all other columns, the previous hash among them."""
        at = self.at.isoformat()
        values = [self.number, at, self.kind, self.subject, self.what, self.size, self.sha256, self.note, self.previous]
        return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()


class Ledger:
    """The ledger of the node in ``home``; safe to open from several processes."""

    def __init__(self, home: NodeHome | Path) -> None:
        self._file = NodeHome(home).ledger

    def record(self, *, kind: str, subject: str, size: int, sha256: str, what: str = "", note: str = "") -> LedgerEntry:
        """Append an entry and return it.

        Raises:
            NoSpaceError: the disk is full, and so nothing may leave.
        """
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            entry = _append(connection, kind=kind, subject=subject, what=what, size=size, sha256=sha256, note=note)
            connection.execute("COMMIT")
        return entry

    def record_refusal(self, *, subject: str, code: str, reason: str, what: str = "") -> LedgerEntry:
        """Append that something asked for from outside did not happen; ``reason`` stays here and may be inner detail.

        Raises:
            NoSpaceError: the disk is full.
        """
        note = " ".join(f"{code}: {reason}".split())[:_LONGEST_NOTE]
        return self.record(kind="refusal", subject=subject, what=what, size=0, sha256="", note=note)

    def record_once(self, *, kind: str, subject: str, size: int, sha256: str, what: str) -> LedgerEntry | None:
        """As `record`, but not twice for the same content of the same part: a retry after a crash sends nothing new."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            known = connection.execute(
                "SELECT 1 FROM entry WHERE kind = ? AND subject = ? AND what = ? AND sha256 = ?",
                (kind, subject, what, sha256),
            ).fetchone()
            if known:
                connection.execute("ROLLBACK")
                return None
            entry = _append(connection, kind=kind, subject=subject, what=what, size=size, sha256=sha256, note="")
            connection.execute("COMMIT")
        return entry

    def entries(self, *, subject: str | None = None, limit: int = 1000) -> list[LedgerEntry]:
        """Return the newest entries, oldest of them first."""
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM entry WHERE ? IS NULL OR subject = ? ORDER BY number DESC LIMIT ?",
                (subject, subject, limit),
            ).fetchall()
        return [_entry(row) for row in reversed(rows)]

    def totals(self) -> LedgerTotals:
        """Return what left so far, for the heartbeat."""
        with self._open() as connection:
            cases, cases_bytes, updates, last = connection.execute(
                "SELECT count(DISTINCT CASE WHEN kind = 'case' THEN subject END), "
                "coalesce(sum(CASE WHEN kind = 'case' THEN size END), 0), "
                "coalesce(sum(CASE WHEN kind = 'update' THEN size END), 0), "
                "max(CASE WHEN kind NOT IN ('refusal', 'base') THEN at END) FROM entry"
            ).fetchone()
        last_at = datetime.fromisoformat(last) if last else None
        return LedgerTotals(cases=cases, bytes_cases=cases_bytes, bytes_updates=updates, last_at=last_at)

    def cases_since(self, span: timedelta) -> int:
        """Return how many cases began to leave within the last ``span``."""
        since = (datetime.now(UTC) - span).isoformat()
        with self._open() as connection:
            sql = "SELECT count(DISTINCT subject) FROM entry WHERE kind = 'case' AND at >= ?"
            return int(connection.execute(sql, (since,)).fetchone()[0])

    def verify(self) -> int:
        """Return the number of entries if the chain holds.

        Raises:
            AuditBrokenError: an entry was changed, removed or put in between.
        """
        with self._open() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM entry ORDER BY number").fetchall()
        previous = GENESIS
        for position, row in enumerate(rows, start=1):
            entry = _entry(row)
            if entry.number != position or entry.previous != previous or entry.hash != entry.expected_hash():
                raise AuditBrokenError(
                    f"The ledger does not verify from entry {position} on: keep the file and find out who changed it."
                )
            previous = entry.hash
        return len(rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._file.touch(mode=0o600)
        except OSError as error:
            raise self._cannot_open(error) from error
        try:
            with closing(sqlite3.connect(self._file, timeout=30.0, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # what left must be known even after a power cut
                connection.executescript(_SCHEMA)
                yield connection
        except sqlite3.OperationalError as error:
            raise self._cannot_open(error) from error
        except sqlite3.DatabaseError as error:
            raise AuditBrokenError("The ledger is damaged: keep the file and restore it from a backup.") from error

    def _cannot_open(self, error: OSError | sqlite3.Error) -> HematovisionError:
        if is_disk_full(error, self._file.parent):
            return NoSpaceError("The disk is full, and nothing leaves unrecorded: make room, then retry.")
        return ConfigError("The ledger cannot be opened: check the home folder and its permissions.")


def _append(
    connection: sqlite3.Connection, *, kind: str, subject: str, what: str, size: int, sha256: str, note: str
) -> LedgerEntry:
    last = connection.execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1").fetchone()
    number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
    draft = LedgerEntry(
        number=number, at=datetime.now(UTC), kind=kind, subject=subject, what=what, size=size, sha256=sha256,
        note=note, previous=previous, hash="",
    )  # fmt: skip
    entry = draft.model_copy(update={"hash": draft.expected_hash()})
    values = (
        number, entry.at.isoformat(), kind, subject, what, size, sha256, note, previous, entry.hash,
    )  # fmt: skip
    connection.execute(f"INSERT INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    return entry


def _entry(row: tuple[object, ...]) -> LedgerEntry:
    return LedgerEntry.model_validate(dict(zip(_COLUMNS.split(", "), row, strict=True)))
