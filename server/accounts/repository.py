"""All SQL of accounts and sessions."""

from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from server.models import Hospital, User, UserSession


def add(session: Session, row: User | UserSession) -> None:
    """Store a new row."""
    session.add(row)
    session.flush()


def by_username(session: Session, username: str, *, lock: bool = False) -> User | None:
    """Return the account of that name."""
    statement = select(User).where(User.username == username)
    return session.exec(statement.with_for_update() if lock else statement).first()


def by_id(session: Session, user_id: str, *, lock: bool = False) -> User | None:
    """Return the account."""
    return session.get(User, user_id, with_for_update=lock)


def hospital_exists(session: Session, hospital_id: str) -> bool:
    """Return whether there is such a hospital."""
    return session.get(Hospital, hospital_id) is not None


def users(session: Session, *, hospital_id: str | None) -> list[User]:
    """Return all accounts, or one hospital's, by user name."""
    statement = select(User).order_by(col(User.username))
    if hospital_id is not None:
        statement = statement.where(User.hospital_id == hospital_id)
    return list(session.exec(statement).all())


def session_and_user(session: Session, session_id: str) -> tuple[UserSession, User] | None:
    """Return a session with its account."""
    statement = (
        select(UserSession, User)
        .join(User, col(UserSession.user_id) == col(User.id))
        .where(UserSession.id == session_id)
    )
    return session.exec(statement).first()


def touch(session: Session, session_id: str, now: datetime) -> None:
    """Write down that the session was used."""
    session.exec(update(UserSession).where(col(UserSession.id) == session_id).values(last_seen_at=now))


def revoke(session: Session, *, now: datetime, session_id: str | None = None, user_id: str | None = None) -> None:
    """End one session, or all of an account."""
    statement = update(UserSession).where(col(UserSession.revoked_at).is_(None)).values(revoked_at=now)
    if session_id is not None:
        statement = statement.where(col(UserSession.id) == session_id)
    if user_id is not None:
        statement = statement.where(col(UserSession.user_id) == user_id)
    session.exec(statement)
