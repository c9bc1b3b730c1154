"""Asking a colleague for a second opinion, and laying it beside the first once it is given."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from pydantic import BaseModel
from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.cases.access import require_reader
from server.cases.schemas import CellView
from server.cases.sight import require_open
from server.models import Case, Opinion, OpinionKind
from server.models.base import utc_now
from server.reviews import opinion_repository as repository
from shared.contracts.agreement import Agreement
from shared.contracts.analysis import Differential
from shared.contracts.errors import ConflictError, DataInvalidError, NotFoundError
from shared.contracts.ontology import CellClass, alike
from shared.statistics import agreement, differential
from shared.text import typed

QUESTION_LIMIT: Final = 500


class OpinionView(BaseModel):
    """A blind reading as those see it who may: its labels only once it is saved."""

    id: str
    kind: OpinionKind
    reader: str | None
    """None: asked of anyone, and taken by nobody yet."""
    asked_by: str | None
    question: str
    asked_at: datetime
    saved_at: datetime | None
    hides_ai: bool
    text: str = ""
    estimate: dict[CellClass, float] = {}
    labels: dict[str, CellClass] = {}
    agreement: Agreement | None = None
    """Of what it was compared with: the AI, or the first reader."""
    mine: bool = False
    """This person asked for it."""


class ComparedCell(BaseModel):
    """A cell that two readers named differently."""

    cell: CellView
    first: CellClass
    second: CellClass


class ComparedCase(BaseModel):
    """Two readings side by side."""

    opinion: OpinionView
    first_reader: str
    first_differential: Differential
    second_differential: Differential
    cells: list[ComparedCell]
    """In disagreement, as they stand now, in reading order."""
    decidable: bool
    """This person holds the case, and so decides."""


def ask(session: Session, principal: Principal, case_id: str, *, of: str | None, question: str, hides_ai: bool) -> str:
    """Ask a colleague (None: anyone) for an opinion on a case that this reader holds; return its id.

    Raises:
        ConflictError: one is asked already, or the colleague has worked on the case, has read a question on it, was
            asked before, or is the asker.
        NotFoundError: there is no such hematologist.
    """
    case = cases.held_case(session, principal, case_id)
    if cases.open_opinion(session, case_id) is not None:
        raise ConflictError("A second opinion on this case is asked already: wait for it, or withdraw it.")
    if of is not None:
        colleague = repository.reader(session, of)
        if colleague is None:
            raise NotFoundError("There is no such hematologist; choose one from the list.")
        if cases.was_told(session, case_id, of):
            raise ConflictError(f"{colleague.display_name} has read a question on this case: ask somebody who has not.")
        if of == principal.user_id or cases.has_worked(session, case_id, of):
            raise ConflictError(
                f"{colleague.display_name} has worked on this case or was asked about it before: ask somebody else."
            )
    words = typed(question, lines=True)
    if len(words) > QUESTION_LIMIT:
        raise DataInvalidError(f"The question is longer than {QUESTION_LIMIT} letters; shorten it.")
    opinion = Opinion(
        case_id=case_id, kind=OpinionKind.SECOND, reader_id=of, hides_ai=hides_ai,
        asked_by=principal.user_id, question=words,
    )  # fmt: skip
    repository.add(session, opinion)
    _note(session, principal, case, "asked", opinion, {"of": of or "anyone", "hides_ai": hides_ai})
    return opinion.id


def require_given(session: Session, case_id: str) -> None:
    """Return if no second opinion on the case is open: for whatever closes it, as nobody could give it then.

    Raises:
        ConflictError: one is asked and not given yet.
    """
    if cases.open_opinion(session, case_id) is not None:
        raise ConflictError("A second opinion is asked and not given yet: wait for it, or withdraw the request.")


def require_shown(session: Session, case_id: str, shown: Collection[str]) -> None:
    """Return if a signer has all second opinions of the case before them: none is open, and all given ones are shown.

    Args:
        shown: ids of the opinions that stand on the page that is signed from.

    Raises:
        ConflictError: one is asked and not given yet, or was given since the page was loaded.
    """
    require_given(session, case_id)
    rows = repository.of_case(session, case_id)
    given = {row.id for row in rows if row.kind is OpinionKind.SECOND and row.saved_at is not None}
    if not given <= set(shown):
        raise ConflictError("A second opinion was given since you loaded the page: reload it, read that, then sign.")


def take(session: Session, principal: Principal, case_id: str) -> None:
    """Take on an opinion that is asked of anyone.

    Raises:
        ConflictError: none is asked of this person, or somebody else was faster.
    """
    require_reader(principal)
    case = cases.visible_case(session, principal, case_id, lock=True)
    seen = cases.sight(session, principal, case)
    if not seen.hides_first or seen.opinion is None:
        raise ConflictError("No second opinion on this case is asked of you (any more). Go back to the worklist.")
    opinion = repository.locked(session, seen.opinion.id)
    if opinion.reader_id is None:
        opinion.reader_id = principal.user_id
        _note(session, principal, case, "taken", opinion, {})


def withdraw(session: Session, principal: Principal, case_id: str, opinion_id: str) -> None:
    """Take a request back that was not answered yet; by whoever asked, or holds the case now.

    Raises:
        ConflictError: it is answered, or not this person's.
    """
    require_reader(principal)
    case = cases.visible_case(session, principal, case_id, lock=True)
    opinion = repository.get(session, case_id, opinion_id)
    if opinion is None or opinion.kind is not OpinionKind.SECOND:
        raise NotFoundError("There is no such request. Reload the page.")
    if opinion.saved_at is not None or opinion.withdrawn_at is not None:
        raise ConflictError("The request is answered or withdrawn already. Reload the page.")
    if principal.user_id not in {opinion.asked_by, case.claimed_by}:
        raise ConflictError("Only who asked for an opinion, or holds the case, takes the request back.")
    opinion.withdrawn_at = utc_now()
    _note(session, principal, case, "withdrawn", opinion, {})


def opinions(session: Session, principal: Principal, case_id: str) -> list[OpinionView]:
    """Return the blind readings of a case; none to whoever reads it blind, and no content before it is saved."""
    case = cases.visible_case(session, principal, case_id)
    if cases.sight(session, principal, case).blind:
        return []
    rows = repository.of_case(session, case_id)
    names = repository.names(session, {one for row in rows for one in (row.reader_id, row.asked_by) if one})
    return [_view(row, names, principal) for row in rows]


def compared(session: Session, principal: Principal, case_id: str, opinion_id: str) -> ComparedCase:
    """Return a saved second opinion beside what the first reader had at that moment.

    Raises:
        NotFoundError: there is none, or it is not saved yet. ConflictError: this person reads the case blind.
    """
    case = cases.visible_case(session, principal, case_id)
    require_open(session, principal, case)
    row = repository.get(session, case_id, opinion_id)
    if row is None or row.kind is not OpinionKind.SECOND or row.saved_at is None:
        raise NotFoundError("This opinion is not given yet. Go back to the case.")
    names = repository.names(session, {one for one in (row.reader_id, row.asked_by) if one})
    first, second = _classes(row.compared_with), _classes(row.labels)
    views = {view.cell_id: view for view in cases.case_view(session, principal, case_id).cells}
    cells = [
        ComparedCell(cell=view, first=first[cell_id], second=second[cell_id])
        for cell_id, view in views.items()
        if cell_id in first and cell_id in second and not alike(first[cell_id], second[cell_id])
    ]
    return ComparedCase(
        opinion=_view(row, names, principal),
        first_reader=names.get(row.asked_by or "", "the first reader"),
        first_differential=differential(first.values()),
        second_differential=differential(second.values()),
        cells=cells,
        decidable=cases.holds(case, principal),
    )


def measured(first: dict[str, CellClass], second: dict[str, CellClass]) -> Agreement | None:
    """Return how far two readings agree on the cells that both have named; None where there is none."""
    pairs = [(first[cell], second[cell]) for cell in first.keys() & second.keys()]
    return agreement([(one, one if alike(one, other) else other) for one, other in pairs]) if pairs else None


def _view(row: Opinion, names: dict[str, str], principal: Principal) -> OpinionView:
    saved = row.saved_at is not None
    labels = _classes(row.labels) if saved else {}
    return OpinionView(
        id=row.id,
        kind=row.kind,
        reader=names.get(row.reader_id or ""),
        asked_by=names.get(row.asked_by or ""),
        question=row.question,
        asked_at=row.asked_at,
        saved_at=row.saved_at,
        hides_ai=row.hides_ai,
        text=row.text if saved else "",
        estimate=row.estimate if saved else {},
        labels=labels,
        agreement=measured(_classes(row.compared_with), labels) if saved else None,
        mine=row.asked_by == principal.user_id,
    )


def _classes(labels: dict[str, str]) -> dict[str, CellClass]:
    return {cell_id: CellClass(label) for cell_id, label in labels.items()}


def _note(
    session: Session, principal: Principal, case: Case, what: str, opinion: Opinion, data: dict[str, object]
) -> None:
    audit.record(
        session,
        subject=cases.subject(case.id),
        actor=principal.actor,
        action=f"opinion.{what}",
        data={"opinion_id": opinion.id, **data},
    )
