"""What must follow from a committed change: written in its transaction, carried out by a worker until it succeeds.

The row, not the broker's message, is the truth. A dispatcher hands due rows to the broker; a worker takes a row on a
lease that it renews while it works; a lease that runs out means that the worker died, and the row is due again. A
message that comes twice finds the row done or in hand, and does nothing. Tasks must still be safe to repeat: a worker
may die between its last effect and the mark.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import structlog
from sqlmodel import Session

from server.db.session import Database
from server.models import OutboxEntry
from server.models.base import utc_now
from server.outbox import repository
from shared.contracts.errors import HematovisionError

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=15)
MESSAGE_LOST_AFTER = timedelta(minutes=2)
MOST_ATTEMPTS = 12
_LONGEST_WAIT = timedelta(minutes=5)
_BATCH = 50

Send = Callable[[str, int], None]
"""Hands (kind, entry id) to the broker."""


def add(
    session: Session,
    kind: str,
    payload: dict[str, Any],  # Any: each kind has its own shape
    *,
    wait: timedelta = timedelta(),
) -> OutboxEntry:
    """Write a row that becomes the task ``kind`` once this transaction has committed, after ``wait``."""
    return repository.add(session, OutboxEntry(kind=kind, payload=payload, not_before=utc_now() + wait))


def waiting(session: Session) -> int:
    """Return how many rows are not done yet."""
    return repository.waiting(session)


def dispatch_pending(database: Database, send: Send) -> int:
    """Hand every due row to the broker; return how many. A message may go twice, never not at all."""
    with database.session(read_only=True) as session:
        if not repository.due(session, now=utc_now(), lost_after=MESSAGE_LOST_AFTER, limit=1):
            return 0
    with database.session() as session:
        entries = repository.due(session, now=utc_now(), lost_after=MESSAGE_LOST_AFTER, limit=_BATCH)
        for entry in entries:
            send(entry.kind, entry.id or 0)
            entry.dispatched_at, entry.lease_until, entry.lease_owner = utc_now(), None, None
    return len(entries)


def run_entry(database: Database, entry_id: int, work: Callable[[dict[str, Any]], None]) -> bool:
    """Carry one row out with ``work``; return whether it ran and succeeded.

    A failure is written down and the row is due again after a growing wait. A business error (the store is away, the
    hospital has no approved node) may mend itself any day, so its row stays due, at last every five minutes; after
    `MOST_ATTEMPTS` unexpected errors a person must look.
    """
    owner = uuid.uuid4().hex
    with database.session() as session:
        entry = repository.take(session, entry_id, owner=owner, now=utc_now(), until=utc_now() + LEASE)
        if entry is None:
            return False
        kind, payload = entry.kind, dict(entry.payload)
    try:
        with _renewing(database, entry_id, owner):
            work(payload)
    except Exception as error:  # noqa: BLE001 - whatever a task raises, its row must not be lost
        _failed(database, entry_id, owner, kind, error)
        return False
    with database.session() as session:
        done = repository.get(session, entry_id)
        if done is not None:
            done.done_at, done.lease_until, done.lease_owner, done.error = utc_now(), None, None, None
            done.attempts += 1
    log.info("outbox.done", entry=entry_id, kind=kind)
    return True


def _failed(database: Database, entry_id: int, owner: str, kind: str, error: Exception) -> None:
    public = error.message if isinstance(error, HematovisionError) else f"unexpected: {type(error).__name__}"
    with database.session() as session:
        entry = repository.get(session, entry_id)
        if entry is None or entry.lease_owner != owner:
            return
        entry.attempts += 1
        entry.error, entry.lease_until, entry.lease_owner, entry.dispatched_at = public, None, None, None
        entry.not_before = utc_now() + min(timedelta(seconds=2 ** min(entry.attempts, 10)), _LONGEST_WAIT)
        if entry.attempts >= MOST_ATTEMPTS and not isinstance(error, HematovisionError):
            entry.gave_up_at = utc_now()
        attempts, gave_up = entry.attempts, entry.gave_up_at is not None
    told = log.error if gave_up else log.warning
    told("outbox.failed", entry=entry_id, kind=kind, attempts=attempts, gave_up=gave_up, exc_info=error)


@contextmanager
def _renewing(database: Database, entry_id: int, owner: str) -> Iterator[None]:
    """Keep the lease alive from a thread of its own while the work goes on."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LEASE.total_seconds() / 3):
            try:
                with database.session() as session:
                    repository.renew(session, entry_id, owner=owner, until=utc_now() + LEASE)
            except Exception as error:  # noqa: BLE001 - a missed renewal must not end the work; the next may succeed
                log.warning("outbox.lease_not_renewed", entry=entry_id, kind=type(error).__name__)

    thread = threading.Thread(target=renew, name=f"outbox-lease-{entry_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
