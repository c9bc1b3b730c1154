"""All SQL of accounts and sessions."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, literal, update
from sqlmodel import Session, col, select

from server.accounts.roles import Role
from server.models import FailedSignIn, Hospital, Invitation, RecoveryCode, SignInStep, User, UserSession


@dataclass(frozen=True)
class Listed:
    """A line of the people page before it is a view."""

    user: User
    sessions: int


def add(session: Session, row: User | UserSession | SignInStep | Invitation) -> None:
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


def active_of_role(session: Session, role: Role, *, lock: bool = False) -> list[User]:
    """Return who of a role may sign in, by name."""
    statement = select(User).where(User.role == role, col(User.active).is_(True))
    ordered = statement.order_by(col(User.display_name), col(User.id))
    return list(session.exec(ordered.with_for_update() if lock else ordered).all())


def hospital_exists(session: Session, hospital_id: str) -> bool:
    """Return whether there is such a hospital."""
    return session.get(Hospital, hospital_id) is not None


def users(
    session: Session, *, hospital_id: str | None, now: datetime, idle_since: datetime, user_id: str | None = None
) -> list[Listed]:
    """Return all accounts, one hospital's or one, by user name, with how many sessions are open, in one query."""
    counted = (
        select(UserSession.user_id, func.count().label("sessions"))
        .where(*_open(now, idle_since))
        .group_by(col(UserSession.user_id))
        .subquery()
    )
    statement = (
        select(User, func.coalesce(counted.c.sessions, 0))
        .join(counted, counted.c.user_id == col(User.id), isouter=True)
        .order_by(col(User.username))
    )
    if hospital_id is not None:
        statement = statement.where(User.hospital_id == hospital_id)
    if user_id is not None:
        statement = statement.where(User.id == user_id)
    return [Listed(user, sessions) for user, sessions in session.exec(statement).all()]


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


def sessions_of(session: Session, user_id: str, *, now: datetime, idle_since: datetime) -> list[UserSession]:
    """Return an account's open sessions, the one used last first."""
    statement = (
        select(UserSession)
        .where(UserSession.user_id == user_id, *_open(now, idle_since))
        .order_by(col(UserSession.last_seen_at).desc())
    )
    return list(session.exec(statement).all())


def revoke(
    session: Session,
    *,
    now: datetime,
    session_id: str | None = None,
    user_id: str | None = None,
    but: str | None = None,
) -> int:
    """End one session, or all of an account (``but`` one); return how many had been open."""
    statement = update(UserSession).where(col(UserSession.revoked_at).is_(None)).values(revoked_at=now)
    if session_id is not None:
        statement = statement.where(col(UserSession.id) == session_id)
    if user_id is not None:
        statement = statement.where(col(UserSession.user_id) == user_id)
    if but is not None:
        statement = statement.where(col(UserSession.id) != but)
    return int(session.exec(statement).rowcount)


def step_and_user(session: Session, step_id: str) -> tuple[SignInStep, User] | None:
    """Return a sign-in that waits for its second factor, with its account, locked: one code, one session."""
    statement = (
        select(SignInStep, User)
        .join(User, col(SignInStep.user_id) == col(User.id))
        .where(SignInStep.id == step_id)
        .with_for_update()
    )
    return session.exec(statement).first()


def end_steps(session: Session, *, user_id: str, now: datetime) -> None:
    """Drop an account's unfinished sign-ins, and everybody's that are too old."""
    session.exec(delete(SignInStep).where((col(SignInStep.user_id) == user_id) | (col(SignInStep.expires_at) <= now)))


def replace_codes(session: Session, user_id: str, hashes: Iterable[str]) -> None:
    """Put new recovery codes in the place of all earlier ones."""
    session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    session.add_all(RecoveryCode(user_id=user_id, code_sha256=digest) for digest in hashes)
    session.flush()


def unused_code(session: Session, user_id: str, digest: str) -> RecoveryCode | None:
    """Return the recovery code of this hash if it is still good, locked."""
    statement = select(RecoveryCode).where(
        RecoveryCode.user_id == user_id, RecoveryCode.code_sha256 == digest, col(RecoveryCode.used_at).is_(None)
    )
    return session.exec(statement.with_for_update()).first()


def codes_left(session: Session, user_id: str) -> int:
    """Return how many recovery codes are still good."""
    statement = select(func.count()).where(col(RecoveryCode.user_id) == user_id, col(RecoveryCode.used_at).is_(None))
    return session.exec(statement).one()


def invitation(session: Session, invitation_id: str) -> Invitation | None:
    """Return an invitation, locked."""
    return session.get(Invitation, invitation_id, with_for_update=True)


def invitation_by_token(session: Session, digest: str, *, lock: bool = False) -> Invitation | None:
    """Return the invitation whose link has this hash."""
    statement = select(Invitation).where(Invitation.token_sha256 == digest)
    return session.exec(statement.with_for_update() if lock else statement).first()


def open_invitations(session: Session, now: datetime) -> list[tuple[Invitation, str | None]]:
    """Return the invitations that wait to be taken up, oldest first, with the name of whoever invited."""
    statement = (
        select(Invitation, User.display_name)
        .join(User, col(Invitation.created_by) == literal("user:") + col(User.id), isouter=True)
        .where(
            col(Invitation.used_at).is_(None), col(Invitation.revoked_at).is_(None), col(Invitation.expires_at) > now
        )
        .order_by(col(Invitation.created_at))
    )
    return [(row, name) for row, name in session.exec(statement).all()]


def failures(session: Session, address: str, since: datetime) -> list[datetime]:
    """Return when attempts from an address failed, newest first."""
    statement = (
        select(FailedSignIn.at)
        .where(FailedSignIn.address == address, col(FailedSignIn.at) > since)
        .order_by(col(FailedSignIn.at).desc())
    )
    return list(session.exec(statement).all())


def add_failure(session: Session, row: FailedSignIn, *, forget: datetime) -> None:
    """Keep a failed attempt, and drop everybody's from before ``forget``."""
    session.exec(delete(FailedSignIn).where(col(FailedSignIn.at) <= forget))
    session.add(row)
    session.flush()


def _open(now: datetime, idle_since: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(UserSession.revoked_at).is_(None),
        col(UserSession.expires_at) > now,
        col(UserSession.last_seen_at) > idle_since,
    )
