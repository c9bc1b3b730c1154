"""All SQL about blind readings; cases are reached through the cases domain, which checks the tenant."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from server.accounts.roles import Role
from server.models import Opinion, OpinionKind, OpinionLabel, User


def add(session: Session, row: Opinion | OpinionLabel) -> None:
    """Store a new row."""
    session.add(row)
    session.flush()


def get(session: Session, case_id: str, opinion_id: str) -> Opinion | None:
    """Return an opinion on a case."""
    query = select(Opinion).where(Opinion.id == opinion_id, Opinion.case_id == case_id)
    return session.exec(query.with_for_update()).first()


def locked(session: Session, opinion_id: str) -> Opinion:
    """Return an opinion, locked, as it stands now."""
    query = select(Opinion).where(Opinion.id == opinion_id)
    return session.exec(query.with_for_update().execution_options(populate_existing=True)).one()


def of_case(session: Session, case_id: str) -> list[Opinion]:
    """Return the blind readings of a case that were asked for or begun, oldest first; none that was withdrawn."""
    query = select(Opinion).where(Opinion.case_id == case_id, col(Opinion.withdrawn_at).is_(None))
    return list(session.exec(query.order_by(col(Opinion.asked_at))).all())


def impression(session: Session, case_id: str) -> Opinion | None:
    """Return the saved first impression of a case."""
    query = select(Opinion).where(
        Opinion.case_id == case_id, Opinion.kind == OpinionKind.FIRST, col(Opinion.saved_at).is_not(None)
    )
    return session.exec(query).first()


def acts(session: Session, opinion_id: str) -> list[list[OpinionLabel]]:
    """Return a reading's acts, oldest first; an act's rows stand together."""
    query = select(OpinionLabel).where(OpinionLabel.opinion_id == opinion_id)
    found: dict[int, list[OpinionLabel]] = {}
    for row in session.exec(query.order_by(col(OpinionLabel.seq), col(OpinionLabel.idempotency_key))):
        found.setdefault(row.seq, []).append(row)
    return list(found.values())


def by_request(session: Session, opinion_id: str, act: str) -> Sequence[OpinionLabel]:
    """Return what one request did in a reading; its rows' keys are ``<act>#<n>``.

    Compared here: SQLite's LIKE takes ``k1`` and ``K1`` for one key, and looks through every reading there is.
    """
    query = select(OpinionLabel).where(OpinionLabel.opinion_id == opinion_id)
    return [row for row in session.exec(query) if row.idempotency_key.rpartition("#")[0] == act]


def reader(session: Session, user_id: str) -> User | None:
    """Return an account that can give an opinion."""
    query = select(User).where(User.id == user_id, User.role == Role.HEMATOLOGIST, col(User.active).is_(True))
    return session.exec(query).first()


def names(session: Session, user_ids: set[str]) -> dict[str, str]:
    """Return id → display name."""
    query = select(User.id, User.display_name).where(col(User.id).in_(user_ids))
    return dict(session.exec(query).all())
