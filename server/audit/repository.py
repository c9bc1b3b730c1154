"""All SQL of the audit; it only ever adds and reads."""

from collections.abc import Iterator

from sqlalchemy import String, cast, func, literal, text
from sqlmodel import Session, col, or_, select

from server.models import AuditCheckpoint, AuditEntry, User


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
    session: Session, *, subject: str | None, words: str | None, hospital_id: str | None, limit: int
) -> list[tuple[AuditEntry, str | None]]:
    """Return the newest matching entries with the display name of the person who acted, if a person did."""
    statement = (
        select(AuditEntry, User.display_name)
        .join(User, col(AuditEntry.actor) == literal("user:") + col(User.id), isouter=True)
        .order_by(col(AuditEntry.id).desc())
        .limit(limit)
    )
    if subject:
        statement = statement.where(AuditEntry.subject == subject)
    if hospital_id:
        statement = statement.where(AuditEntry.subject == f"hospital:{hospital_id}")
    if words:
        like = f"%{words.replace('%', '').replace('_', '')}%"
        statement = statement.where(
            or_(
                col(AuditEntry.subject).ilike(like),
                col(AuditEntry.action).ilike(like),
                col(User.display_name).ilike(like),
                cast(col(AuditEntry.data), String).ilike(like),
            )
        )
    return [(entry, name) for entry, name in session.exec(statement).all()]
