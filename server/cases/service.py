"""What people do with cases: find, open, claim; and what other domains may do to one."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import blinding, opinion_repository, repository, views
from server.cases.access import require_reader, scope_of
from server.cases.lifecycle import LEASE, READABLE, check_transition
from server.cases.schemas import Amending, BlindView, CaseView, CellOutline, CellView
from server.cases.sight import Sight, require_shown_ai, sight_of, without_first
from server.models import Case, CaseCell, CaseField, Opinion
from server.models.base import utc_now
from shared.contracts.analysis import Differential, Quality
from shared.contracts.case import CaseReceipt, CaseState, ClinicalContext
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus


def case_view(session: Session, principal: Principal, case_id: str) -> CaseView:
    """Return everything the reading room shows this person: without what they must not know while they read blind."""
    case = visible_case(session, principal, case_id)
    sight = sight_of(session, principal, case)
    view = _whole_view(session, case)
    return _blinded(session, principal, case, view, sight) if sight.blind else view


def _blinded(session: Session, principal: Principal, case: Case, view: CaseView, sight: Sight) -> CaseView:
    cells = blinding.blind_cells(case.id, repository.cells(session, case.id), sight, principal.display_name)
    opinion, kind = sight.opinion, blinding.blind_kind(sight)
    holds = views.lease_holds(case, utc_now()) and case.claimed_by == principal.user_id
    own = opinion is not None and opinion.reader_id == principal.user_id
    blind = BlindView(
        kind=kind,
        hides_ai=sight.hides_ai,
        mine=(own if sight.hides_first else holds) and case.state in READABLE,
        takeable=sight.hides_first and opinion is not None and opinion.reader_id is None,
        asked_by=repository.user_name(session, opinion.asked_by) if opinion else None,
        question=opinion.question if opinion else "",
        text=opinion.text if opinion and own else "",
        estimate=opinion.estimate if opinion and own else {},
        labelled=len(sight.labels),
    )
    return blinding.blind_view(view, cells, sight, blind)


def _whole_view(session: Session, case: Case) -> CaseView:
    case_id = case.id
    held = views.lease_holds(case, utc_now())
    cells = repository.cells(session, case_id)
    return CaseView(
        case_id=case.id,
        hospital_id=case.hospital_id,
        hospital_name=hospital_name(session, case.hospital_id),
        priority=case.priority,
        state=case.state,
        version=case.version,
        context=ClinicalContext.model_validate(case.context),
        flags=views.flag_views(case),
        quality=Quality.model_validate(case.quality),
        ai_differential=case.differential,
        differential=views.live_differential(cells),
        untrained_classes=[CellClass(value) for value in case.untrained_classes],
        limits=case.limits,
        model_version=case.model_version,
        fields=views.field_views(repository.fields(session, case_id)),
        cells=views.cell_views(cells, views.numbers(cells), _names(session, cells)),
        earlier_cases=repository.earlier_case_ids(session, case),
        claimed_by=repository.user_name(session, case.claimed_by) if held else None,
        claimed_by_id=case.claimed_by if held else None,
        lease_until=case.lease_until if held else None,
        received_at=case.received_at,
        due_at=case.due_at,
        pseudo=case.pseudo,
        synthetic=case.synthetic,
        report_id=repository.report_id(session, case_id),
        amending=amending(case),
        overlays=views.overlays(case),
    )


def claim(session: Session, principal: Principal, case_id: str, *, take_over: bool = False) -> None:
    """Take a case for reading: a lease that a heartbeat renews. Taking over from somebody is said aloud and audited.

    Raises:
        ConflictError: somebody else holds it and ``take_over`` is not set, or it is past reading, or this person is
            asked for an opinion that is blind to its first reader.
    """
    require_reader(principal)
    case, now = visible_case(session, principal, case_id, lock=True), utc_now()
    if sight_of(session, principal, case).hides_first:
        raise ConflictError("A second opinion is asked of you, blind to the first reader: give it before you claim.")
    if case.state not in READABLE:
        raise ConflictError(f"The case is {case.state.value.replace('_', ' ')}; it can no longer be claimed.")
    holder = case.claimed_by if views.lease_holds(case, now) else None
    if holder == principal.user_id:
        case.lease_until = now + LEASE
        return
    if holder is not None and not take_over:
        name = repository.user_name(session, holder)
        raise ConflictError(f"{name} is reading this case. Take it over if you have agreed on that.")
    action, before = ("case.taken_over" if holder else "case.claimed"), case.claimed_by
    if case.state is CaseState.AVAILABLE:
        _step(case, CaseState.CLAIMED)
    case.claimed_by, case.claimed_at, case.lease_until = principal.user_id, now, now + LEASE
    case.version += 1
    audit.record(
        session, subject=subject(case_id), actor=principal.actor, action=action, data={"previous_holder": before}
    )


def heartbeat_lease(session: Session, principal: Principal, case_id: str) -> datetime:
    """Renew the lease while the reading room is open; return until when it holds."""
    case = held_case(session, principal, case_id, blind=True)
    case.lease_until = utc_now() + LEASE
    return case.lease_until


def release(session: Session, principal: Principal, case_id: str) -> None:
    """Give a case back; changes made so far stand."""
    case = held_case(session, principal, case_id, blind=True)
    if case.state is CaseState.READY:
        _step(case, CaseState.IN_REVIEW)
    _step(case, CaseState.AVAILABLE)
    case.claimed_by = case.claimed_at = case.lease_until = None
    case.version += 1
    audit.record(session, subject=subject(case_id), actor=principal.actor, action="case.released", data={})


def holder(session: Session, principal: Principal, case_id: str) -> str | None:
    """Return the id of who holds a case at this moment."""
    case = visible_case(session, principal, case_id)
    return case.claimed_by if views.lease_holds(case, utc_now()) else None


def receipt(session: Session, *, hospital_id: str, case_id: str) -> CaseReceipt:
    """Tell a node where its case stands."""
    case = repository.get(session, case_id, scope=hospital_id)
    if case is not None:
        return CaseReceipt(case_id=case_id, state=case.state)
    bad = repository.quarantined(session, hospital_id, case_id)
    return CaseReceipt(case_id=case_id, state=None, problem=bad.reason if bad else None)


# What reviews and reports do to a case; none of it is reachable without their own checks.


def subject(case_id: str) -> str:
    """Return the audit's name of a case."""
    return f"case:{case_id}"


def visible_case(
    session: Session, principal: Principal, case_id: str, *, lock: bool = False, whole: bool = False
) -> Case:
    """Return the case, or `NotFoundError` where this person may not even know of it.

    ``whole``: with its manifest, for use after the session too, see `repository.get`.
    """
    case = repository.get(session, case_id, scope=scope_of(principal), lock=lock, light=not whole)
    if case is None:
        raise NotFoundError("There is no such case. Go back to the worklist.")
    return case


def held_case(session: Session, principal: Principal, case_id: str, *, blind: bool = False) -> Case:
    """Return the case for a change, if this reader holds it; a lapsed claim that nobody took revives.

    ``blind``: also while its first impression is not saved: for what touches no class that stands.

    Raises:
        ConflictError: somebody else holds it, or nobody does, or it is past reading, or its AI is still hidden.
    """
    require_reader(principal)
    case, now = visible_case(session, principal, case_id, lock=True), utc_now()
    require_held(case, principal, blind=blind)
    if not views.lease_holds(case, now):
        case.lease_until = now + LEASE
    return case


def require_held(case: Case, principal: Principal, *, blind: bool = False) -> None:
    """Return if this person may change the case now; nothing is locked or renewed.

    Raises:
        ConflictError: see `held_case`.
    """
    if case.state not in READABLE:
        raise ConflictError(f"The case is {case.state.value.replace('_', ' ')}; it can no longer be changed.")
    if case.claimed_by != principal.user_id:
        raise ConflictError("You do not hold this case (any more). Claim it, then try again.")
    if not blind:
        require_shown_ai(case)


def field_of(session: Session, case_id: str, index: int) -> CaseField:
    """Return one field image of a case that the caller may see."""
    field = repository.field(session, case_id, index)
    if field is None:
        raise NotFoundError("The case has no such field.")
    return field


def set_class(cell: CaseCell, label: CellClass, *, by: str | None, at: datetime | None, stands: bool = True) -> None:
    """Set the class that stands; ``by`` None where no reader's change stands any more."""
    cell.current_class, cell.changed_by, cell.changed_at, cell.stands = label, by, at, stands


def amending(case: Case) -> Amending | None:
    """Return what is being amended, if anything is."""
    return Amending.model_validate(case.amending) if case.amending else None


def reopen(
    session: Session, principal: Principal, case: Case, *, status: ReportStatus, of_version: int, reason: str
) -> None:
    """Take a finished case back into review, held by this reader, for a new version of its report."""
    before = case.state
    advance(session, case, CaseState.IN_REVIEW, actor=principal.actor)
    now = utc_now()
    case.claimed_by, case.claimed_at, case.lease_until = principal.user_id, now, now + LEASE
    begun = Amending(status=status, of_version=of_version, reason=reason, before=before, case_version=case.version)
    case.amending = begun.model_dump(mode="json")


def leave_amending(case: Case, *, back: bool) -> None:
    """Note that an amendment is signed, or (``back``) that it was not made: the case stands where it stood."""
    begun = amending(case)
    if back and begun is not None:
        case.state, case.lease_until = begun.before, None
        case.version += 1
    case.amending = None


def begin_review(session: Session, case: Case, *, actor: str) -> None:
    """Note that reading has begun, if it had not."""
    if case.state is not CaseState.IN_REVIEW:
        advance(session, case, CaseState.IN_REVIEW, actor=actor)


def advance(session: Session, case: Case, *states: CaseState, actor: str) -> None:
    """Walk a case through ``states``, each step checked and audited."""
    for state in states:
        before = case.state
        _step(case, state)
        data = {"from": before.value, "to": state.value}
        audit.record(session, subject=subject(case.id), actor=actor, action="case.state", data=data)
    case.version += 1


def _step(case: Case, state: CaseState) -> None:
    check_transition(case.state, state)
    case.state = state


def case_for_hospital(session: Session, *, hospital_id: str, case_id: str) -> Case:
    """Return a hospital's own case, locked, or `NotFoundError`."""
    case = repository.get(session, case_id, scope=hospital_id, lock=True)
    if case is None:
        raise NotFoundError("There is no such case of this hospital.")
    return case


def hospital_name(session: Session, hospital_id: str) -> str:
    """Return a hospital's name, its id where it has none."""
    hospital = repository.hospital(session, hospital_id)
    return hospital.name if hospital else hospital_id


def people(session: Session, user_ids: Collection[str]) -> dict[str, str]:
    """Return id → what people are called, of those who changed something in a case."""
    return repository.user_names(session, user_ids)


def cells_of(session: Session, case_id: str) -> list[CaseCell]:
    """Return a case's cells as they stand, in the order of their numbers."""
    return views.standing(repository.cells(session, case_id))


def all_cells_of(session: Session, case_id: str) -> list[CaseCell]:
    """Return every cell that the case ever had: also what readers have split, merged or taken back."""
    return repository.cells(session, case_id)


def cells_named(session: Session, case_id: str, cell_ids: Collection[str]) -> Sequence[CaseCell]:
    """Return those of a case's cells that have these ids, standing or not, in no order."""
    return repository.cells_named(session, case_id, cell_ids)


def outlines_of(session: Session, case_id: str) -> list[CellOutline]:
    """Return every cell that the case ever had, in the order of their numbers, as far as the whole of them matters."""
    return repository.outlines(session, case_id)


def cell_numbers(session: Session, case_id: str) -> dict[str, int]:
    """Return cell id → what a person calls it."""
    return views.numbers(repository.outlines(session, case_id))


def numbers_of(cells: Sequence[CaseCell | CellOutline]) -> dict[str, int]:
    """Return cell id → what a person calls it; ``cells`` are all of the case."""
    return views.numbers(cells)


def doubtful(cell: CaseCell | CellOutline) -> bool:
    """Whether the model was unsure of the cell, whatever a reader made of it."""
    return views.is_doubtful(cell)


def cell_views_of(session: Session, cells: Sequence[CaseCell], numbers: Mapping[str, int]) -> list[CellView]:
    """Return the views of those of the cells that stand; ``numbers``: cell id → what a person calls it."""
    return views.cell_views(cells, numbers, _names(session, cells))


def sight(session: Session, principal: Principal, case: Case) -> Sight:
    """Return what is hidden of a case from this person."""
    return sight_of(session, principal, case)


def blind_cases(session: Session, principal: Principal) -> set[str]:
    """Return the ids of the cases whose first reading is hidden from this person until their own is saved."""
    return without_first(session, principal)


def open_opinion(session: Session, case_id: str) -> Opinion | None:
    """Return the second opinion that is asked of a case and not given yet."""
    return opinion_repository.open_opinion(session, case_id)


def has_worked(session: Session, case_id: str, user_id: str) -> bool:
    """Whether somebody has worked on a case or was asked for an opinion on it before, and so cannot read it blind."""
    return opinion_repository.has_worked(session, case_id, user_id)


def was_told(session: Session, case_id: str, user_id: str) -> bool:
    """Whether somebody has read a colleague's question on a case, and so cannot read it blind."""
    return opinion_repository.was_told(session, case_id, user_id)


def holds(case: Case, principal: Principal) -> bool:
    """Whether this person can change the case now."""
    return case.state in READABLE and case.claimed_by == principal.user_id


def blind_cells_of(session: Session, case: Case, seen: Sight, me: str) -> list[CellView]:
    """Return the cells of a case as a blind reading shows them."""
    return blinding.blind_cells(case.id, repository.cells(session, case.id), seen, me)


def dispute(cell: CaseCell) -> None:
    """Note that the first impression named the cell otherwise than the model."""
    cell.disputed = True


def differential_of(cells: Sequence[CaseCell | CellOutline]) -> Differential:
    """Return the live differential."""
    return views.live_differential(cells)


def _names(session: Session, cells: Sequence[CaseCell]) -> dict[str, str]:
    people = {person for cell in cells for person in (cell.changed_by, cell.added_by) if person is not None}
    return repository.user_names(session, people)
