"""What must follow from a committed change: written in its transaction, carried out by a worker, once."""

from typing import Any

from sqlmodel import Session

from server.models import OutboxEntry
from server.outbox import repository


def add(session: Session, kind: str, payload: dict[str, Any]) -> OutboxEntry:  # Any: each kind has its own shape
    """Write a row that becomes the task ``kind`` once this transaction has committed."""
    return repository.add(session, OutboxEntry(kind=kind, payload=payload))
