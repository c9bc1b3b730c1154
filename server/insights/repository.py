"""All SQL of the insights: what a case's figures are made of, and the figures of a period."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from server.models import (
    AuditEntry,
    Case,
    CaseCell,
    CaseMeasure,
    Hospital,
    Opinion,
    OpinionKind,
    OpinionLabel,
    ReadingActivity,
    Report,
    User,
)


def add(session: Session, row: CaseMeasure) -> None:
    """Store new figures."""
    session.add(row)


def of_case(session: Session, case_id: str) -> CaseMeasure | None:
    """Return a case's figures."""
    return session.get(CaseMeasure, case_id)


def cells(session: Session, case_id: str) -> Sequence[CaseCell]:
    """Return every cell that the case ever had."""
    return session.exec(select(CaseCell).where(CaseCell.case_id == case_id)).all()


def signer(session: Session, case_id: str) -> str | None:
    """Return who signed the first report of a case: whose reading it was."""
    query = select(Report.signed_by).where(Report.case_id == case_id).order_by(col(Report.version))
    return session.exec(query).first()


def impression(session: Session, case_id: str) -> Opinion | None:
    """Return the saved first impression of a case."""
    query = select(Opinion).where(
        Opinion.case_id == case_id, Opinion.kind == OpinionKind.FIRST, col(Opinion.saved_at).is_not(None)
    )
    return session.exec(query).first()


def acts(session: Session, case_id: str, reader_id: str) -> list[datetime]:
    """Return when a reader did something to a case: by the audit, and in their first impression of it."""
    audited = select(AuditEntry.at).where(
        AuditEntry.subject == f"case:{case_id}", AuditEntry.actor == f"user:{reader_id}"
    )
    blind = (
        select(OpinionLabel.at)
        .join(Opinion, col(Opinion.id) == col(OpinionLabel.opinion_id))
        .where(Opinion.case_id == case_id, Opinion.reader_id == reader_id)
    )
    return [*session.exec(audited), *session.exec(blind)]


def activity(session: Session, case_id: str, reader_id: str) -> Sequence[ReadingActivity]:
    """Return the counts that a reader's page has told."""
    query = select(ReadingActivity).where(ReadingActivity.case_id == case_id, ReadingActivity.reader_id == reader_id)
    return session.exec(query).all()


def unmeasured(session: Session, limit: int) -> Sequence[Case]:
    """Return cases without figures, or signed ones whose figures are from before: taken in by an earlier version."""
    query = (
        select(Case)
        .join(CaseMeasure, col(CaseMeasure.case_id) == col(Case.id), isouter=True)
        .where(
            or_(
                col(CaseMeasure.case_id).is_(None),
                col(Case.signed_at).is_not(None) & col(CaseMeasure.signed_at).is_(None),
            )
        )
        .limit(limit)
    )
    return session.exec(query).all()


@dataclass(frozen=True)
class Measured:
    """A case's figures with the names that a page shows."""

    figures: CaseMeasure
    hospital: str
    reader: str | None


def since(session: Session, moment: datetime) -> list[Measured]:
    """Return the figures of the cases received or signed since, oldest first.

    Cases whose first impression is not saved are left out: in a quiet week their figures would tell what the AI found.
    """
    query = (
        select(CaseMeasure, Hospital.name, User.display_name)
        .join(Hospital, col(Hospital.id) == col(CaseMeasure.hospital_id))
        .join(User, col(User.id) == col(CaseMeasure.reader_id), isouter=True)
        .join(Case, col(Case.id) == col(CaseMeasure.case_id))
        .where(or_(col(CaseMeasure.received_at) >= moment, col(CaseMeasure.signed_at) >= moment))
        .where(or_(col(Case.blind_drawn).is_(False), col(Case.blind_read_at).is_not(None)))
        .order_by(col(CaseMeasure.received_at))
    )
    return [Measured(*row) for row in session.exec(query)]


def unlike(
    session: Session, moment: datetime, *, only: str | None, hidden: Collection[str]
) -> list[tuple[str, str, int, int]]:
    """Return, by hospital and stain, the cells of cases received since and how many of these are unlike the training.

    ``only``: of this hospital; ``hidden`` cases are left out, and those whose first impression is not saved, as in
    `since`.
    """
    figures = CaseMeasure
    query = (
        select(
            figures.hospital_id,
            figures.stain,
            func.coalesce(func.sum(figures.cells), 0),
            func.coalesce(func.sum(figures.ood_cells), 0),
        )
        .join(Case, col(Case.id) == col(figures.case_id))
        .where(col(figures.received_at) >= moment, col(figures.case_id).not_in(hidden))
        .where(or_(col(Case.blind_drawn).is_(False), col(Case.blind_read_at).is_not(None)))
        .group_by(col(figures.hospital_id), col(figures.stain))
        .order_by(col(figures.hospital_id), col(figures.stain))
    )
    if only is not None:
        query = query.where(figures.hospital_id == only)
    return [(hospital, stain, int(cells), int(ood)) for hospital, stain, cells, ood in session.exec(query)]


@dataclass(frozen=True)
class Second:
    """A saved second opinion."""

    opinion: Opinion
    hospital: str


def second_opinions(session: Session, moment: datetime) -> list[Second]:
    """Return the second opinions saved since."""
    query = (
        select(Opinion, Hospital.name)
        .join(Case, col(Case.id) == col(Opinion.case_id))
        .join(Hospital, col(Hospital.id) == col(Case.hospital_id))
        .where(Opinion.kind == OpinionKind.SECOND, col(Opinion.saved_at) >= moment)
    )
    return [Second(*row) for row in session.exec(query)]


def names(session: Session) -> dict[str, str]:
    """Return id → display name of everybody."""
    return dict(session.exec(select(User.id, User.display_name)).all())
