"""All SQL of the outbox."""

from datetime import datetime, timedelta

from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from server.models import OutboxEntry


def add(session: Session, entry: OutboxEntry) -> OutboxEntry:
    """Store a new entry and give it its number."""
    session.add(entry)
    session.flush()
    return entry


def get(session: Session, entry_id: int) -> OutboxEntry | None:
    """Return the entry, if it is there."""
    return session.get(OutboxEntry, entry_id)


def due(session: Session, *, now: datetime, lost_after: timedelta, limit: int) -> list[OutboxEntry]:
    """Return entries to hand to the broker: new ones, those backed off long enough, and those whose worker died."""
    statement = (
        select(OutboxEntry)
        .where(
            col(OutboxEntry.done_at).is_(None),
            col(OutboxEntry.gave_up_at).is_(None),
            col(OutboxEntry.not_before) <= now,
            or_(
                col(OutboxEntry.dispatched_at).is_(None),
                col(OutboxEntry.lease_until) < now,
                # Not even begun after so long: the broker lost the message (a no-op for the worker if it did not).
                (col(OutboxEntry.lease_until).is_(None)) & (col(OutboxEntry.dispatched_at) < now - lost_after),
            ),
        )
        .order_by(col(OutboxEntry.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(session.exec(statement).all())


def take(session: Session, entry_id: int, *, owner: str, now: datetime, until: datetime) -> OutboxEntry | None:
    """Put the entry in ``owner``'s hands, unless it is over or in another's; atomic on every database."""
    free = or_(col(OutboxEntry.lease_until).is_(None), col(OutboxEntry.lease_until) < now)
    taken = session.exec(
        update(OutboxEntry)
        .where(col(OutboxEntry.id) == entry_id, col(OutboxEntry.done_at).is_(None), free)
        .where(col(OutboxEntry.gave_up_at).is_(None))
        .values(lease_until=until, lease_owner=owner)
    )
    return session.get(OutboxEntry, entry_id, populate_existing=True) if taken.rowcount else None


def renew(session: Session, entry_id: int, *, owner: str, until: datetime) -> None:
    """Keep the entry in ``owner``'s hands."""
    session.exec(
        update(OutboxEntry)
        .where(col(OutboxEntry.id) == entry_id, col(OutboxEntry.lease_owner) == owner)
        .values(lease_until=until)
    )


def waiting(session: Session) -> int:
    """Return how many entries are not done."""
    return len(session.exec(select(OutboxEntry.id).where(col(OutboxEntry.done_at).is_(None))).all())
