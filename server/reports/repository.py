"""All SQL about reports; every look-up goes through a hospital scope."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.models import Case, Hospital, Node, Report
from shared.contracts.case import CaseId
from shared.contracts.enrolment import EnrolmentState

Scope = str | None
"""The hospital a query is limited to; None: all hospitals."""
ROW_LIMIT = 500


@dataclass(frozen=True)
class Listed:
    """A report line before it is a view."""

    report: Report
    hospital_name: str


def listed(session: Session, *, scope: Scope, report_id: str | None = None, case_id: str | None = None) -> list[Listed]:
    """Return reports, newest first, with their hospital's name, in one query."""
    query = (
        select(Report, Hospital.name)
        .join(Hospital, col(Hospital.id) == col(Report.hospital_id))
        .order_by(col(Report.created_at).desc())
        .limit(ROW_LIMIT)
    )
    if scope is not None:
        query = query.where(Report.hospital_id == scope)
    if report_id is not None:
        query = query.where(Report.id == report_id)
    if case_id is not None:
        query = query.where(Report.case_id == case_id)
    return [Listed(*row) for row in session.exec(query)]


def id_of_asked(session: Session, case_id: str, signed_by: str, asked: str) -> str | None:
    """Return the id of the report of a case that one person signed, asked for in these words under this key."""
    query = select(Report.id).where(Report.case_id == case_id, Report.signed_by == signed_by, Report.asked == asked)
    return session.exec(query).first()


def latest_of(session: Session, case_ids: Collection[str], *, scope: Scope) -> list[Listed]:
    """Return each case's newest report, in one query."""
    newest = (
        select(Report.case_id, func.max(Report.version).label("version"))
        .where(col(Report.case_id).in_(case_ids))
        .group_by(col(Report.case_id))
        .subquery()
    )
    query = (
        select(Report, Hospital.name)
        .join(newest, (col(Report.case_id) == newest.c.case_id) & (col(Report.version) == newest.c.version))
        .join(Hospital, col(Hospital.id) == col(Report.hospital_id))
    )
    if scope is not None:
        query = query.where(Report.hospital_id == scope)
    return [Listed(*row) for row in session.exec(query)]


def get(session: Session, report_id: str, *, scope: Scope, lock: bool = False) -> Report | None:
    """Return the report if it exists inside the scope."""
    query = select(Report).where(Report.id == report_id)
    if scope is not None:
        query = query.where(Report.hospital_id == scope)
    return session.exec(query.with_for_update() if lock else query).first()


def latest_version(session: Session, case_id: CaseId) -> int:
    """Return the newest version of a case's report, 0 where there is none."""
    query = select(Report.version).where(Report.case_id == case_id).order_by(col(Report.version).desc())
    return session.exec(query).first() or 0


def waiting(session: Session, hospital_id: str) -> list[Report]:
    """Return rendered reports that the hospital has not acknowledged, oldest first."""
    query = (
        select(Report)
        .where(
            Report.hospital_id == hospital_id,
            col(Report.bundle_key).is_not(None),
            col(Report.acknowledged_at).is_(None),
        )
        .order_by(col(Report.created_at))
    )
    return list(session.exec(query))


def receiving_node(session: Session, case: Case) -> Node | None:
    """Return the node a case's report is sealed to: the one that sent it, or its hospital's newest approved one."""
    sender = session.get(Node, case.node_id)
    if sender is not None and sender.state is EnrolmentState.APPROVED:
        return sender
    query = (
        select(Node)
        .where(Node.hospital_id == case.hospital_id, Node.state == EnrolmentState.APPROVED)
        .order_by(col(Node.enrolled_at).desc())
    )
    return session.exec(query).first()
