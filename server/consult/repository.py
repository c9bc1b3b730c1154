"""All SQL of questions; cases are reached through the cases domain, which checks the tenant."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import Session, col, select

from server.models import ConsultMessage, ConsultPerson, ConsultThread, User


def add(session: Session, row: ConsultThread | ConsultMessage | ConsultPerson) -> None:
    """Store a new row."""
    session.add(row)
    session.flush()


def thread(session: Session, case_id: str, thread_id: str, *, lock: bool = False) -> ConsultThread | None:
    """Return a thread of a case."""
    query = select(ConsultThread).where(ConsultThread.id == thread_id, ConsultThread.case_id == case_id)
    return session.exec(query.with_for_update() if lock else query).first()


def threads(session: Session, case_id: str) -> list[ConsultThread]:
    """Return a case's threads: open ones first, of each the newest."""
    query = select(ConsultThread).where(ConsultThread.case_id == case_id)
    order = (col(ConsultThread.resolved_at).is_not(None), col(ConsultThread.last_at).desc())
    return list(session.exec(query.order_by(*order)).all())


def messages(session: Session, thread_ids: Collection[str]) -> list[tuple[ConsultMessage, str]]:
    """Return the threads' messages with their authors' names, oldest first."""
    query = (
        select(ConsultMessage, User.display_name)
        .join(User, col(User.id) == col(ConsultMessage.author))
        .where(col(ConsultMessage.thread_id).in_(thread_ids))
        .order_by(col(ConsultMessage.at), col(ConsultMessage.id))
    )
    return list(session.exec(query).all())


def message_by_key(session: Session, key: str) -> ConsultMessage | None:
    """Return the message that was sent under this key."""
    return session.exec(select(ConsultMessage).where(ConsultMessage.idempotency_key == key)).first()


def message(session: Session, message_id: str) -> ConsultMessage | None:
    """Return a message."""
    return session.get(ConsultMessage, message_id)


def thread_by_id(session: Session, thread_id: str) -> ConsultThread | None:
    """Return a thread, of whatever case: for letters only, which say nothing of it."""
    return session.get(ConsultThread, thread_id)


def people(session: Session, thread_ids: Collection[str]) -> list[tuple[ConsultPerson, User]]:
    """Return who takes part in threads, by name."""
    query = (
        select(ConsultPerson, User)
        .join(User, col(User.id) == col(ConsultPerson.user_id))
        .where(col(ConsultPerson.thread_id).in_(thread_ids))
        .order_by(col(User.display_name))
    )
    return list(session.exec(query).all())


def person(session: Session, thread_id: str, user_id: str, *, lock: bool = False) -> ConsultPerson | None:
    """Return somebody's part in a thread."""
    return session.get(ConsultPerson, (thread_id, user_id), with_for_update=lock)


def unread(user_id: str) -> ColumnElement[bool]:
    """Return the condition that a thread, joined with a person's part in it, holds something new for that person."""
    return (
        (col(ConsultPerson.user_id) == user_id)
        & (col(ConsultThread.last_by) != user_id)
        & or_(col(ConsultPerson.read_at).is_(None), col(ConsultThread.last_at) > col(ConsultPerson.read_at))
    )


def unread_by_case(session: Session, user_id: str, case_ids: Collection[str] | None) -> dict[str, int]:
    """Return case id → how many threads hold something new for a person."""
    query = (
        select(ConsultThread.case_id, func.count())
        .join(ConsultPerson, col(ConsultPerson.thread_id) == col(ConsultThread.id))
        .where(unread(user_id))
        .group_by(col(ConsultThread.case_id))
    )
    if case_ids is not None:
        query = query.where(col(ConsultThread.case_id).in_(case_ids))
    return dict(session.exec(query).all())


def newest(session: Session, *, since: datetime) -> dict[str, datetime]:
    """Return case id → when something was last said there, of cases where that was after ``since``."""
    query = (
        select(ConsultThread.case_id, func.max(ConsultThread.last_at))
        .where(ConsultThread.last_at >= since)
        .group_by(col(ConsultThread.case_id))
    )
    return dict(session.exec(query).all())


def stamp(session: Session, case_id: str) -> str:
    """Return what changes with every message of a case."""
    return str(session.exec(select(func.max(ConsultThread.last_at)).where(ConsultThread.case_id == case_id)).one())
