"""All SQL about blind readings of cases: which are asked, whose they could be, and who knows a case already."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, bindparam, exists, literal, or_
from sqlalchemy import select as sql_select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from server.cases.repository import attribute
from server.models import (
    AuditEntry,
    Case,
    ConsultPerson,
    ConsultThread,
    Opinion,
    OpinionKind,
    OpinionLabel,
    User,
)
from shared.contracts.ontology import CellClass

_NO_WORK: Final = ("case.assigned", "case.unassigned")
"""Acts on a case for which nobody need have seen it: the worklist has them."""
OPEN_SECOND: Final = (
    col(Opinion.kind) == OpinionKind.SECOND,
    col(Opinion.saved_at).is_(None),
    col(Opinion.withdrawn_at).is_(None),
)


def open_opinion(session: Session, case_id: str, *, lock: bool = False) -> Opinion | None:
    """Return the second opinion that is asked of a case and not given yet."""
    query = select(Opinion).where(Opinion.case_id == case_id, *OPEN_SECOND)
    return session.exec(query.with_for_update() if lock else query).first()


_ANY_OPEN: Final = sql_select(attribute(Opinion.id)).where(*OPEN_SECOND).limit(1)
_OPEN_OF: Final = _ANY_OPEN.where(col(Opinion.case_id) == bindparam("case_id"))


def opinions_to_give(session: Session, reader_id: str, *, case_id: str | None = None) -> Sequence[Opinion]:
    """Return the second opinions, of one case or of all, that are asked of a reader, or of anyone and could be theirs.

    What is asked of anyone is no matter of whoever asked, holds the case, has worked on it or was told of it.
    """
    # Most cases are read once, and every page asks: only where one is open is it worth asking whose it could be.
    if session.execute(_ANY_OPEN if case_id is None else _OPEN_OF, {"case_id": case_id}).first() is None:
        return ()
    anyone = and_(
        col(Opinion.reader_id).is_(None),
        col(Opinion.asked_by).is_distinct_from(reader_id),
        col(Case.claimed_by).is_distinct_from(reader_id),
        ~_worked(col(Case.id), reader_id),
        ~_told(col(Case.id), reader_id),
    )
    query = select(Opinion).join(Case, col(Case.id) == col(Opinion.case_id))
    query = query.where(*OPEN_SECOND, or_(col(Opinion.reader_id) == reader_id, anyone))
    return session.exec(query if case_id is None else query.where(Opinion.case_id == case_id)).all()


@dataclass(frozen=True)
class Asked:
    """A second opinion that is asked, for the worklist."""

    case_id: str
    reader_id: str | None
    asked_by: str
    asked_by_id: str


def open_opinions(session: Session) -> list[Asked]:
    """Return every second opinion that is asked and not given yet."""
    query = (
        select(Opinion.case_id, Opinion.reader_id, User.display_name, User.id)
        .join(User, col(User.id) == col(Opinion.asked_by))
        .where(*OPEN_SECOND)
    )
    return [Asked(*row) for row in session.exec(query)]


def begun_impression(session: Session, case_id: str, reader_id: str, *, lock: bool = False) -> Opinion | None:
    """Return the first impression that this reader has begun and not saved."""
    query = select(Opinion).where(
        Opinion.case_id == case_id,
        Opinion.kind == OpinionKind.FIRST,
        Opinion.reader_id == reader_id,
        col(Opinion.saved_at).is_(None),
    )
    return session.exec(query.with_for_update() if lock else query).first()


def opinion_labels(session: Session, opinion_id: str) -> dict[str, CellClass]:
    """Return cell id → class of a blind reading, as its acts have left it."""
    query = select(OpinionLabel).where(OpinionLabel.opinion_id == opinion_id)
    last: dict[str, CellClass | None] = {}
    for row in session.exec(query.order_by(col(OpinionLabel.seq))):
        last[row.cell_id] = row.label
    return {cell_id: label for cell_id, label in last.items() if label is not None}


def has_worked(session: Session, case_id: str, user_id: str) -> bool:
    """Whether somebody has claimed a case or changed it, as the audit knows, or was ever asked for an opinion on it.

    Who was asked and asked no more has seen the case open since.
    """
    return session.exec(select(_worked(literal(case_id), user_id))).one()


def _worked(case_id: SQLColumnExpression[str], user_id: str) -> ColumnElement[bool]:
    acted = exists().where(
        col(AuditEntry.subject) == literal("case:") + case_id,
        col(AuditEntry.actor) == f"user:{user_id}",
        col(AuditEntry.action).not_in(_NO_WORK),
    )
    earlier = aliased(Opinion)
    asked = exists().where(
        col(earlier.case_id) == case_id, col(earlier.kind) == OpinionKind.SECOND, col(earlier.reader_id) == user_id
    )
    return or_(acted, asked)


def was_told(session: Session, case_id: str, user_id: str) -> bool:
    """Whether somebody has read a colleague's question on a case: it says what the colleague thinks of it."""
    return session.exec(select(_told(literal(case_id), user_id))).one()


def _told(case_id: SQLColumnExpression[str], user_id: str) -> ColumnElement[bool]:
    return exists().where(
        col(ConsultThread.case_id) == case_id,
        col(ConsultPerson.thread_id) == col(ConsultThread.id),
        col(ConsultPerson.user_id) == user_id,
        col(ConsultPerson.read_at).is_not(None),
    )
