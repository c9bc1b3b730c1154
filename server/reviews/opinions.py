"""Reading blind: classify cells, keep text and estimate, save once; nothing of it touches the classes that stand.

The same acts serve a first impression (blind to the AI, by whoever holds a drawn case) and a second opinion (blind to
the first reader). `server.cases.sight` says which of them a person is in, and hides what they must not see.
"""

import hashlib
from collections.abc import Mapping, Sequence

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.cases.access import require_reader
from server.cases.lifecycle import READABLE
from server.cases.schemas import CellView
from server.cases.sight import Sight
from server.models import Case, ChangeKind, Opinion, OpinionKind, OpinionLabel
from server.models.base import utc_now
from server.reviews import drafts, steps
from server.reviews import opinion_repository as repository
from server.reviews.schemas import ChangeResult
from shared.contracts.errors import ConflictError, DataInvalidError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.statistics import differential
from shared.text import typed

TEXT_LIMIT = 4000
_ROUNDING = 0.5


def classify(
    session: Session,
    principal: Principal,
    case_id: str,
    *,
    cell_ids: list[str],
    label: CellClass | None,
    idempotency_key: str,
) -> ChangeResult:
    """Give cells a class in this person's blind reading; None: confirm what the AI shows. Repeating it is harmless.

    Cells that have the class already are no change: there is nothing of them to take back.

    Raises:
        NotFoundError: a cell is not of this case. ConflictError: this person has no blind reading of it to do.
    """
    case, opinion = _begun(session, principal, case_id)
    act = f"{opinion.id}:set:{idempotency_key}"
    if not repository.by_request(session, opinion.id, act):
        shown = {view.cell_id: view for view in _cells(session, principal, case)}
        if not cell_ids or len(cell_ids) > steps.CHANGE_LIMIT:
            raise DataInvalidError("Mark the cells to classify first.")
        if unknown := set(cell_ids) - shown.keys():
            raise NotFoundError(f"{len(unknown)} of the marked cells are not of this case. Reload the page.")
        if label is None and opinion.hides_ai:
            raise DataInvalidError("There is no class to confirm yet: set one.")
        own = cases.sight(session, principal, case).labels
        named = {cell_id: label or shown[cell_id].current_class for cell_id in cell_ids}
        if changed := {cell_id: cls for cell_id, cls in named.items() if own.get(cell_id) is not cls}:
            _take(session, opinion, act, changed)
    return _result(session, principal, case, set(cell_ids))


def undo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> ChangeResult:
    """Take this reading's last standing act back.

    Raises:
        ConflictError: there is none.
    """
    return _again(session, principal, case_id, ChangeKind.UNDO, idempotency_key)


def redo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> ChangeResult:
    """Make the act again that was taken back last, unless another came between.

    Raises:
        ConflictError: there is none.
    """
    return _again(session, principal, case_id, ChangeKind.REDO, idempotency_key)


def keep_draft(
    session: Session,
    principal: Principal,
    case_id: str,
    *,
    text: str,
    estimate: Mapping[CellClass, float],
    over: Sequence[str] | None = None,
) -> None:
    """Keep text and estimate while they are written. ``over``, of the text: see `drafts.require_base`."""
    _, opinion = _begun(session, principal, case_id)
    cleaned = _text(text)
    drafts.require_base(opinion.text, cleaned, over)
    opinion.text, opinion.estimate = cleaned, _estimate(estimate)


def save(
    session: Session, principal: Principal, case_id: str, *, text: str, estimate: Mapping[CellClass, float]
) -> str | None:
    """Save the blind reading: from now on it never changes, and what was hidden is shown to its reader.

    Returns the id of a second opinion, to look at it beside the first; None after a first impression.

    Raises:
        DataInvalidError: no text, or neither a classified cell nor an estimate.
    """
    case, opinion = _begun(session, principal, case_id)
    opinion.text, opinion.estimate = _text(text), _estimate(estimate)
    labels = cases.sight(session, principal, case).labels
    if not opinion.text:
        raise DataInvalidError("Write what you think of the smear; a line will do.")
    if not labels and not opinion.estimate:
        raise DataInvalidError("Classify some cells, or estimate the differential by eye; then save.")
    opinion.labels = {cell_id: label.value for cell_id, label in labels.items()}
    opinion.saved_at = utc_now()
    if opinion.kind is OpinionKind.FIRST:
        _reveal(session, principal, case, opinion)
    else:
        _meet(session, case, opinion)
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action=f"opinion.{opinion.kind.value}_saved",
        data={
            "opinion_id": opinion.id,
            "labels": opinion.labels,
            "estimate": opinion.estimate,
            "text_sha256": hashlib.sha256(opinion.text.encode()).hexdigest(),
        },
    )
    return opinion.id if opinion.kind is OpinionKind.SECOND else None


def _reveal(session: Session, principal: Principal, case: Case, opinion: Opinion) -> None:
    """Show the AI; what the reader named otherwise wants a second look, and the text begins their impression."""
    case.blind_read_at = opinion.saved_at
    cells = cases.cells_of(session, case.id)
    opinion.compared_with = {cell.cell_id: cell.ai_class.value for cell in cells}
    for cell in cells:
        if opinion.labels.get(cell.cell_id, cell.ai_class.value) != cell.ai_class.value:
            cases.dispute(cell)
    review = steps.reading(session, case, principal)
    review.impression = review.impression or opinion.text
    cases.begin_review(session, case, actor=principal.actor)
    case.version += 1


def _meet(session: Session, case: Case, opinion: Opinion) -> None:
    """Keep what the first reader had before either saw the other's; what the second left stands as it was shown.

    They were shown all that the hospital sent: also what the first had merged or split, which compares with nothing.
    """
    sent = [cell for cell in cases.all_cells_of(session, case.id) if cell.added_by is None]
    opinion.compared_with = {cell.cell_id: cell.current_class.value for cell in sent if cell.stands}
    if not opinion.hides_ai:
        opinion.labels = {cell.cell_id: opinion.labels.get(cell.cell_id, cell.ai_class.value) for cell in sent}


def _begun(session: Session, principal: Principal, case_id: str) -> tuple[Case, Opinion]:
    """Return the case and this person's blind reading of it, locked; a first impression begins with its first act.

    Raises:
        ConflictError: there is none to do.
    """
    require_reader(principal)
    case = cases.visible_case(session, principal, case_id, lock=True)
    if case.state not in READABLE:
        raise ConflictError(f"The case is {case.state.value.replace('_', ' ')}; it can no longer be read.")
    seen = cases.sight(session, principal, case)
    if not seen.blind:
        raise ConflictError("Nothing of this case is hidden from you (any more). Reload the page.")
    if not seen.hides_first:
        cases.held_case(session, principal, case_id, blind=True)
    opinion = seen.opinion or Opinion(
        case_id=case_id, kind=OpinionKind.FIRST, reader_id=principal.user_id, hides_ai=True
    )
    if opinion.reader_id != principal.user_id:
        raise ConflictError("Take the opinion on first; then the reading is yours.")
    if seen.opinion is None:
        repository.add(session, opinion)
    return case, repository.locked(session, opinion.id)


def _cells(session: Session, principal: Principal, case: Case, seen: Sight | None = None) -> list[CellView]:
    seen = seen or cases.sight(session, principal, case)
    return cases.blind_cells_of(session, case, seen, principal.display_name)


def _take(
    session: Session,
    opinion: Opinion,
    act: str,
    wanted: Mapping[str, CellClass | None],
    *,
    kind: ChangeKind = ChangeKind.CLASS,
    refers_to: int | None = None,
) -> None:
    """Write an act down."""
    done = repository.acts(session, opinion.id)
    before = {row.cell_id: row.label for rows in done for row in rows}
    now, seq = utc_now(), len(done) + 1
    for number, (cell_id, label) in enumerate(wanted.items()):
        session.add(
            OpinionLabel(
                opinion_id=opinion.id,
                seq=seq,
                cell_id=cell_id,
                previous=before.get(cell_id),
                label=label,
                at=now,
                kind=kind,
                refers_to=refers_to,
                idempotency_key=f"{act}#{number}",
            )
        )
    session.flush()


def _again(
    session: Session, principal: Principal, case_id: str, kind: ChangeKind, idempotency_key: str
) -> ChangeResult:
    case, opinion = _begun(session, principal, case_id)
    act = f"{opinion.id}:{kind.value}:{idempotency_key}"
    before = repository.by_request(session, opinion.id, act)
    if before:
        return _result(session, principal, case, {row.cell_id for row in before})
    standing, taken_back = _piles(repository.acts(session, opinion.id))
    pile = standing if kind is ChangeKind.UNDO else taken_back
    if not pile:
        raise ConflictError(
            "There is nothing to take back." if kind is ChangeKind.UNDO else "There is nothing to redo."
        )
    rows = pile[-1]
    wanted = {row.cell_id: row.previous if kind is ChangeKind.UNDO else row.label for row in rows}
    _take(session, opinion, act, wanted, kind=kind, refers_to=rows[0].seq)
    return _result(session, principal, case, set(wanted))


def _piles(acts: Sequence[list[OpinionLabel]]) -> tuple[list[list[OpinionLabel]], list[list[OpinionLabel]]]:
    """Return the acts that stand and those taken back, each in the order in which the next undo or redo comes last."""
    standing: list[list[OpinionLabel]] = []
    taken_back: list[list[OpinionLabel]] = []
    for rows in acts:
        if rows[0].kind is ChangeKind.UNDO:
            taken_back.append(standing.pop())
        elif rows[0].kind is ChangeKind.REDO:
            standing.append(taken_back.pop())
        else:
            standing.append(rows)
            taken_back.clear()
    return standing, taken_back


def _result(session: Session, principal: Principal, case: Case, wanted: set[str]) -> ChangeResult:
    seen = cases.sight(session, principal, case)
    cells = _cells(session, principal, case, seen)
    counted = [cell.current_class for cell in cells if cell.changed_by is not None or not seen.hides_ai]
    return ChangeResult(
        case_version=len(seen.labels) if seen.hides_first else case.version,
        cells=[cell for cell in cells if cell.cell_id in wanted],
        differential=differential(counted),
        changes=len(seen.labels),
    )


def _text(text: str) -> str:
    cleaned = typed(text, lines=True)
    if len(cleaned) > TEXT_LIMIT:
        raise DataInvalidError(f"The text is longer than {TEXT_LIMIT} letters; shorten it.")
    return cleaned


def _estimate(estimate: Mapping[CellClass, float]) -> dict[str, float]:
    given = {cls.value: float(value) for cls, value in estimate.items() if value}
    if any(not 0 <= value <= 100 for value in given.values()) or sum(given.values()) > 100 + _ROUNDING:
        raise DataInvalidError("The estimated percentages must not go beyond 100 together.")
    return given
