"""All SQL of the audit; it only ever adds and reads."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import ColumnElement, String, cast, func, literal, text
from sqlmodel import Session, col, or_, select

from server.audit.schemas import AuditQuery
from server.models import AuditCheckpoint, AuditEntry, User

_ESCAPE: Final = "\\"


def lock(session: Session, subject: str) -> None:
    """Let one writer at a time extend the subject's chain; SQLite writers are alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject}
        )


def head(session: Session, subject: str) -> AuditEntry | None:
    """Return the newest entry of a subject."""
    statement = select(AuditEntry).where(AuditEntry.subject == subject).order_by(col(AuditEntry.seq).desc()).limit(1)
    return session.exec(statement).first()


def add(session: Session, row: AuditEntry | AuditCheckpoint) -> None:
    """Store a new row."""
    session.add(row)
    session.flush()


def heads(session: Session) -> list[AuditEntry]:
    """Return the newest entry of every subject."""
    newest = (
        select(AuditEntry.subject, func.max(AuditEntry.seq).label("seq")).group_by(col(AuditEntry.subject)).subquery()
    )
    statement = select(AuditEntry).join(
        newest, (col(AuditEntry.subject) == newest.c.subject) & (col(AuditEntry.seq) == newest.c.seq)
    )
    return list(session.exec(statement).all())


def chains(session: Session) -> Iterator[AuditEntry]:
    """Yield every entry, chain by chain, oldest first."""
    statement = select(AuditEntry).order_by(col(AuditEntry.subject), col(AuditEntry.seq))
    yield from session.exec(statement.execution_options(yield_per=500))


def checkpoints(session: Session) -> list[AuditCheckpoint]:
    """Return all checkpoints, oldest first."""
    return list(session.exec(select(AuditCheckpoint).order_by(col(AuditCheckpoint.id))).all())


def search(
    session: Session, wanted: AuditQuery, *, hospital_id: str | None, limit: int
) -> list[tuple[AuditEntry, str | None]]:
    """Return the newest matching entries with the display name of the person who acted, if a person did."""
    statement = (
        select(AuditEntry, User.display_name)
        .join(User, col(AuditEntry.actor) == literal("user:") + col(User.id), isouter=True)
        .where(*_conditions(wanted))
        .order_by(col(AuditEntry.id).desc())
        .limit(limit)
    )
    if hospital_id:
        statement = statement.where(AuditEntry.subject == f"hospital:{hospital_id}")
    return [(entry, name) for entry, name in session.exec(statement).all()]


def actions(session: Session) -> list[str]:
    """Return every action that was ever recorded."""
    return list(session.exec(select(AuditEntry.action).distinct().order_by(AuditEntry.action)).all())


def _conditions(wanted: AuditQuery) -> Iterator[ColumnElement[bool]]:
    if wanted.subject:
        yield col(AuditEntry.subject) == wanted.subject
    if wanted.action:
        yield col(AuditEntry.action) == wanted.action
    if wanted.since:
        yield col(AuditEntry.at) >= wanted.since
    if wanted.until:
        yield col(AuditEntry.at) < wanted.until
    if wanted.before is not None:
        yield col(AuditEntry.id) < wanted.before
    if wanted.actor:
        like = _holding(wanted.actor)
        yield or_(
            col(AuditEntry.actor).ilike(like, escape=_ESCAPE),
            col(User.display_name).ilike(like, escape=_ESCAPE),
            col(User.username).ilike(like, escape=_ESCAPE),
        )
    if wanted.text:
        like = _holding(wanted.text)
        places = (AuditEntry.subject, AuditEntry.action, User.display_name)
        words = [col(place).ilike(like, escape=_ESCAPE) for place in places]
        yield or_(*words, cast(col(AuditEntry.data), String).ilike(like, escape=_ESCAPE))


def _holding(words: str) -> str:
    for letter in (_ESCAPE, "%", "_"):
        words = words.replace(letter, _ESCAPE + letter)
    return f"%{words}%"
