"""All SQL about cases; every look-up by a person goes through a hospital scope."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar, cast

from sqlalchemy import bindparam, func, or_, true
from sqlalchemy import select as sql_select
from sqlalchemy.orm import QueryableAttribute, defer, load_only
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select, SelectOfScalar

from server.cases.access import Scope
from server.cases.lifecycle import DONE
from server.cases.schemas import CellOutline
from server.db.types import JsonDict
from server.models import (
    Case,
    CaseCell,
    CaseField,
    Hospital,
    Node,
    OutboxEntry,
    Quarantine,
    Report,
    User,
)
from shared.contracts.case import CaseState, Priority
from shared.contracts.ontology import CellClass

_REFERENCE_ROWS = 300


def attribute(column: object) -> QueryableAttribute[Any]:  # Any: a column of any type
    """Return a model's attribute as what it is on the class, for options of loading."""
    return cast("QueryableAttribute[Any]", column)


def _scoped(query: SelectOfScalar[Case], scope: Scope) -> SelectOfScalar[Case]:
    return query if scope is None else query.where(Case.hospital_id == scope)


def get(session: Session, case_id: str, *, scope: Scope, lock: bool = False, light: bool = False) -> Case | None:
    """Return the case if it exists inside the scope; ``lock`` holds its row until the transaction ends.

    ``light``: without its manifest, a list of all its images, which comes when it is asked for inside the session.
    """
    query = _scoped(select(Case).where(Case.id == case_id), scope)
    if light:
        query = query.options(defer(attribute(Case.manifest)))
    return session.exec(query.with_for_update() if lock else query).first()


def hospitals(session: Session, *, scope: Scope) -> dict[str, str]:
    """Return id → name of the hospitals that have sent cases."""
    query = select(Hospital.id, Hospital.name).where(
        col(Hospital.id).in_(select(Case.hospital_id).distinct()),
    )
    if scope is not None:
        query = query.where(Hospital.id == scope)
    return dict(session.exec(query.order_by(Hospital.name)).all())


def hospital(session: Session, hospital_id: str) -> Hospital | None:
    """Return one hospital."""
    return session.get(Hospital, hospital_id)


def node(session: Session, node_id: str) -> Node | None:
    """Return one node, whatever its state."""
    return session.get(Node, node_id)


def user_name(session: Session, user_id: str | None) -> str | None:
    """Return a person's display name."""
    return None if user_id is None else session.exec(select(User.display_name).where(User.id == user_id)).first()


def user_names(session: Session, user_ids: Collection[str]) -> dict[str, str]:
    """Return id → display name."""
    if not user_ids:
        return {}
    return dict(session.exec(select(User.id, User.display_name).where(col(User.id).in_(user_ids))).all())


def fields(session: Session, case_id: str) -> Sequence[CaseField]:
    """Return a case's field images in order."""
    return session.exec(select(CaseField).where(CaseField.case_id == case_id).order_by(col(CaseField.index))).all()


def cells(session: Session, case_id: str) -> list[CaseCell]:
    """Return all cells a case ever had, in the order of their numbers.

    That is the natural order of the ids that the hospital gave, then the order in which readers marked theirs: a cell
    keeps its number whatever is added, split or merged later.
    """
    return _numbered(session.exec(select(CaseCell).where(CaseCell.case_id == case_id)).all())


def cells_named(session: Session, case_id: str, cell_ids: Collection[str]) -> Sequence[CaseCell]:
    """Return those of a case's cells that have these ids, in no order."""
    query = select(CaseCell).where(CaseCell.case_id == case_id, col(CaseCell.cell_id).in_(set(cell_ids)))
    return session.exec(query).all()


_Cell = TypeVar("_Cell", CaseCell, CellOutline)
_OUTLINE: Final = sql_select(*(attribute(getattr(CaseCell, name)) for name in CellOutline._fields)).where(
    col(CaseCell.case_id) == bindparam("case_id")
)


def outlines(session: Session, case_id: str) -> list[CellOutline]:
    """Return all cells a case ever had, in the order of their numbers, without what only the page of a cell needs.

    Whole rows of a case of hundreds of cells cost most of what a reader's act takes.
    """
    return _numbered([CellOutline(*row) for row in session.execute(_OUTLINE, {"case_id": case_id})])


def _numbered(rows: Sequence[_Cell]) -> list[_Cell]:
    found = sorted((cell for cell in rows if cell.added_at is None), key=lambda cell: natural_key(cell.cell_id))
    marked = [(cell.added_at, cell.cell_id, cell) for cell in rows if cell.added_at is not None]
    return found + [cell for _, _, cell in sorted(marked, key=lambda one: one[:2])]


def field(session: Session, case_id: str, index: int) -> CaseField | None:
    """Return one field image of a case."""
    return session.get(CaseField, (case_id, index))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key by which ``c2`` stands before ``c10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def earlier_case_ids(session: Session, case: Case) -> list[str]:
    """Return the ids of the same patient's earlier cases from the same hospital, newest first."""
    query = (
        select(Case.id)
        .where(
            Case.hospital_id == case.hospital_id,
            Case.patient_pseudonym == case.patient_pseudonym,
            Case.received_at < case.received_at,
            Case.id != case.id,
        )
        .order_by(col(Case.received_at).desc())
    )
    return list(session.exec(query))


def report_id(session: Session, case_id: str) -> str | None:
    """Return the id of the case's newest report version."""
    query = select(Report.id).where(Report.case_id == case_id).order_by(col(Report.version).desc())
    return session.exec(query).first()


def quarantined(session: Session, hospital_id: str, case_id: str) -> Quarantine | None:
    """Return the newest quarantine entry of a case."""
    query = (
        select(Quarantine)
        .where(Quarantine.hospital_id == hospital_id, Quarantine.case_id == case_id)
        .order_by(col(Quarantine.at).desc())
    )
    return session.exec(query).first()


def known_case_ids(session: Session) -> set[tuple[str, str]]:
    """Return (hospital id, case id) of everything taken in or quarantined."""
    known = set(session.exec(select(Case.hospital_id, Case.id)).all())
    return known | set(session.exec(select(Quarantine.hospital_id, Quarantine.case_id)).all())


def pending_ingest(session: Session, kind: str, hospital_id: str, case_id: str) -> bool:
    """Whether a notice of this case is still to be worked on."""
    query = select(OutboxEntry.payload).where(
        OutboxEntry.kind == kind, col(OutboxEntry.done_at).is_(None), col(OutboxEntry.gave_up_at).is_(None)
    )
    return {"hospital_id": hospital_id, "case_id": case_id} in session.exec(query).all()


@dataclass(frozen=True)
class Signed:
    """A cell of a signed case."""

    cell: CaseCell
    case: Case
    set_by: str | None
    """Name of the reader who set or accepted its class."""


def signed_cells(
    session: Session, label: CellClass, *, hospital_id: str, pseudonym: str, but: str, most: int
) -> list[Signed]:
    """Return cells of a class in a patient's signed cases, newest case first."""
    query = (
        _signed(label)
        .where(Case.hospital_id == hospital_id, Case.patient_pseudonym == pseudonym, Case.id != but)
        .order_by(col(Case.signed_at).desc(), col(CaseCell.ai_probability).desc(), col(CaseCell.cell_id))
        .limit(most)
    )
    return [Signed(cell, case, name) for cell, case, name in session.exec(query)]


def shared_cells(session: Session, label: CellClass, *, but_patient: tuple[str, str]) -> list[Signed]:
    """Return cells of a class that hospitals share, those that a reader has set first; a few hundred at the most."""
    hospital_id, pseudonym = but_patient
    query = (
        _signed(label)
        .join(Hospital, col(Hospital.id) == col(Case.hospital_id))
        .where(col(Hospital.shares_references).is_(True))
        .where(or_(col(Case.hospital_id) != hospital_id, col(Case.patient_pseudonym) != pseudonym))
        .order_by(col(CaseCell.changed_by).is_(None), col(CaseCell.ai_probability).desc(), col(CaseCell.cell_id))
        .limit(_REFERENCE_ROWS)
    )
    return [Signed(cell, case, name) for cell, case, name in session.exec(query)]


@dataclass(frozen=True)
class Timed:
    """When a case came, was due, was taken and was signed."""

    hospital_id: str
    hospital_name: str
    priority: Priority
    received_at: datetime
    due_at: datetime
    claimed_at: datetime | None
    signed_at: datetime | None

    @property
    def in_time(self) -> bool:
        """Whether it was signed before it was due."""
        return self.signed_at is not None and self.signed_at <= self.due_at


def timed(session: Session, *, scope: Scope, signed_since: datetime, open_states: Collection[CaseState]) -> list[Timed]:
    """Return the cases that were signed since then and those that stand open, in one query."""
    times = (Case.hospital_id, Case.priority, Case.received_at, Case.due_at, Case.claimed_at, Case.signed_at)
    query = (
        select(Case, Hospital.name)
        .options(load_only(*map(attribute, times)))
        .join(Hospital, col(Hospital.id) == col(Case.hospital_id))
        .where(or_(col(Case.signed_at) >= signed_since, col(Case.state).in_(open_states)))
    )
    if scope is not None:
        query = query.where(Case.hospital_id == scope)
    return [
        Timed(
            hospital_id=case.hospital_id,
            hospital_name=name,
            priority=case.priority,
            received_at=case.received_at,
            due_at=case.due_at,
            claimed_at=case.claimed_at,
            signed_at=case.signed_at,
        )
        for case, name in session.exec(query)
    ]


def latest_qualities(session: Session, *, scope: Scope, each: int) -> list[tuple[str, JsonDict]]:
    """Return node id and `Quality` of each node's latest cases, newest first, in one query."""
    rank = func.row_number().over(partition_by=col(Case.node_id), order_by=col(Case.received_at).desc())
    of_scope = true() if scope is None else col(Case.hospital_id) == scope
    newest = select(col(Case.id).label("id"), rank.label("rank")).where(of_scope).subquery()
    query = (
        select(Case.node_id, Case.quality)
        .join(newest, newest.c.id == col(Case.id))
        .where(newest.c.rank <= each)
        .order_by(col(Case.received_at).desc())
    )
    return [(node_id, dict(quality)) for node_id, quality in session.exec(query)]


def _signed(label: CellClass) -> "Select[CaseCell, Case, str]":
    return (
        select(CaseCell, Case, User.display_name)
        .join(Case, col(Case.id) == col(CaseCell.case_id))
        .join(User, col(User.id) == col(CaseCell.changed_by), isouter=True)
        .where(col(CaseCell.stands).is_(True), CaseCell.current_class == label, col(Case.state).in_(DONE))
    )
