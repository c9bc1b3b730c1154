"""A reader's work on a case: change classes, take changes back, write an impression, sign out."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.models import Case, CaseCell, FlagDecision, LabelChange, Review
from server.models.base import utc_now
from server.outbox import service as outbox
from server.reports import service as reports
from server.reviews import repository
from server.reviews.schemas import ChangeResult, ChangeView, FlagDecisionInput, SignInput
from server.runtime import Runtime
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import Signature

IMPRESSION_LIMIT = 4000
CHANGE_LIMIT = 2000


def reclassify(
    session: Session,
    principal: Principal,
    case_id: str,
    *,
    cell_ids: list[str],
    label: CellClass,
    idempotency_key: str,
) -> ChangeResult:
    """Give cells another class, or confirm the class of cells that no reader has set; both are changes on record.

    The same key again changes nothing and returns the same cells.

    Raises:
        NotFoundError: a cell is not of this case; nothing was changed.
        ConflictError: this reader does not hold the case.
    """
    case = cases.held_case(session, principal, case_id)
    request = f"set:{case_id}:{idempotency_key}"
    rows = cases.cells_of(session, case_id)
    done = repository.changes_by_request(session, request)
    if done:
        return _result(session, case, rows, {change.cell_id for change in done})
    wanted = _pick(rows, cell_ids)
    now = utc_now()
    changed = [cell for cell in wanted if cell.current_class is not label or cell.changed_by is None]
    for number, cell in enumerate(changed):
        session.add(
            LabelChange(
                case_id=case_id,
                cell_id=cell.cell_id,
                previous=cell.current_class,
                label=label,
                by=principal.user_id,
                at=now,
                idempotency_key=f"{request}#{number}",
            )
        )
        cases.set_class(cell, label, by=principal.user_id, at=now)
    if changed:
        moves = {change.cell_id: label.value for change in changed}
        _note(session, case, principal, action="cells.reclassified", data={"labels": moves})
    return _result(session, case, rows, set(cell_ids))


def undo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> ChangeResult:
    """Take back this reader's last standing change (all cells it touched), as a change of its own."""
    case = cases.held_case(session, principal, case_id)
    request = f"undo:{case_id}:{idempotency_key}"
    rows = cases.cells_of(session, case_id)
    done = repository.changes_by_request(session, request)
    if done:
        return _result(session, case, rows, {change.cell_id for change in done})
    standing = [change for change in repository.changes(session, case_id) if not change.undone]
    own = [change for change in standing if change.by == principal.user_id]
    if not own:
        raise ConflictError("There is no change of yours left to take back.")
    group = own[-1].idempotency_key.rpartition("#")[0]
    taken_back = [change for change in own if change.idempotency_key.rpartition("#")[0] == group]
    left = [change for change in standing if change not in taken_back]
    by_id, now = {cell.cell_id: cell for cell in rows}, utc_now()
    for number, change in enumerate(taken_back):
        change.undone = True
        cell = by_id[change.cell_id]
        session.add(
            LabelChange(
                case_id=case_id,
                cell_id=change.cell_id,
                previous=cell.current_class,
                label=change.previous,
                by=principal.user_id,
                at=now,
                undone=True,
                idempotency_key=f"{request}#{number}",
            )
        )
        _restore(cell, change, left)
    _note(
        session,
        case,
        principal,
        action="cells.change_undone",
        data={"labels": {change.cell_id: change.previous.value for change in taken_back}},
    )
    return _result(session, case, rows, {change.cell_id for change in taken_back})


def _restore(cell: CaseCell, change: LabelChange, left: Sequence[LabelChange]) -> None:
    """Set the class from before ``change``; whoever's earlier change stands then is its author again."""
    earlier = [other for other in left if other.cell_id == cell.cell_id]
    by, at = (earlier[-1].by, earlier[-1].at) if earlier else (None, None)
    cases.set_class(cell, change.previous, by=by, at=at)


def history(session: Session, principal: Principal, case_id: str) -> list[ChangeView]:
    """Return every change of the case, newest first; nothing is ever left out."""
    cases.visible_case(session, principal, case_id)
    return [
        ChangeView(
            cell_id=change.cell_id,
            previous=change.previous,
            label=change.label,
            by=name,
            at=change.at,
            undone=change.undone,
        )
        for change, name in repository.named_changes(session, case_id)
    ]


def impression(session: Session, principal: Principal, case_id: str) -> str:
    """Return the impression as this reader last saved it, or as the last signed reading holds it."""
    cases.visible_case(session, principal, case_id)
    own = repository.review(session, case_id, principal.user_id)
    shown = own or repository.latest_review(session, case_id)
    return shown.impression if shown else ""


def save_impression(session: Session, principal: Principal, case_id: str, text: str) -> None:
    """Keep the reader's draft; it is not part of the record until signed."""
    case = cases.held_case(session, principal, case_id)
    review = _reading(session, case, principal)
    review.impression = _impression(text, required=False)


def sign(session: Session, principal: Principal, runtime: Runtime, case_id: str, signing: SignInput) -> str:
    """Sign the case out as a final report and return the report's id; all of it in the caller's transaction.

    Raises:
        UnauthenticatedError: the password is wrong.
        ConflictError: the case changed since the page was loaded, or this reader does not hold it.
        DataInvalidError: no impression, or a dismissed flag without a reason.
    """
    accounts.check_password(session, principal.user_id, signing.password)
    case = cases.held_case(session, principal, case_id)
    if case.version != signing.case_version:
        raise ConflictError("The case was changed since you loaded it. Look at it again, then sign.")
    now, text = utc_now(), _impression(signing.impression, required=True)
    dismissed = _decide(session, case, principal, signing.decisions, now)
    review = _reading(session, case, principal)
    review.impression, review.signed_at = text, now
    cases.begin_review(session, case, actor=principal.actor)
    cases.advance(session, case, CaseState.READY, CaseState.SIGNED, actor=principal.actor)
    case.signed_at, case.lease_until = now, None
    report = reports.issue(
        session,
        runtime.vault,
        case=case,
        cells=cases.cells_of(session, case_id),
        signed_by=principal.user_id,
        signature=Signature(reader_name=principal.display_name, reader_role=principal.role.label, signed_at=now),
        impression=text,
        dismissed=dismissed,
    )
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action="case.signed",
        data={"report_id": report.id, "version": report.version, "labels_corrected": len(report.feedback)},
    )
    outbox.add(session, "reports.render", {"report_id": report.id})
    return report.id


def _decide(
    session: Session, case: Case, principal: Principal, decisions: list[FlagDecisionInput], now: datetime
) -> dict[str, str]:
    """Keep the reader's word on the flags and return the dismissed ones with their reasons."""
    flags = {str(flag["id"]) for flag in case.flags}
    dismissed: dict[str, str] = {}
    for decision in decisions:
        if decision.flag_id not in flags:
            raise DataInvalidError("A decision names a flag that this case does not have. Reload the page.")
        reason = decision.reason.strip()
        if not decision.agreed and not reason:
            raise DataInvalidError("Say why you dismiss a flag; the reason stands in the report.")
        if not decision.agreed:
            dismissed[decision.flag_id] = reason
        row = repository.decision(session, case.id, decision.flag_id)
        if row is None:
            row = FlagDecision(case_id=case.id, flag_id=decision.flag_id, agreed=decision.agreed, by=principal.user_id)
            session.add(row)
        row.agreed, row.reason, row.by, row.at = decision.agreed, reason, principal.user_id, now
    return dismissed


def _impression(text: str, *, required: bool) -> str:
    cleaned = "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()
    if required and not cleaned:
        raise DataInvalidError("Write your impression before you sign.")
    if len(cleaned) > IMPRESSION_LIMIT:
        raise DataInvalidError(f"The impression is longer than {IMPRESSION_LIMIT} letters; shorten it.")
    return cleaned


def _pick(rows: list[CaseCell], cell_ids: list[str]) -> list[CaseCell]:
    if not cell_ids or len(cell_ids) > CHANGE_LIMIT:
        raise DataInvalidError("Mark the cells to change first.")
    by_id = {cell.cell_id: cell for cell in rows}
    if unknown := set(cell_ids) - by_id.keys():
        raise NotFoundError(f"{len(unknown)} of the marked cells are not of this case. Reload the page.")
    return [by_id[cell_id] for cell_id in dict.fromkeys(cell_ids)]


def _reading(session: Session, case: Case, principal: Principal) -> Review:
    review = repository.review(session, case.id, principal.user_id)
    if review is None:
        review = Review(case_id=case.id, reader_id=principal.user_id)
        session.add(review)
    return review


def _note(session: Session, case: Case, principal: Principal, *, action: str, data: dict[str, object]) -> None:
    _reading(session, case, principal)
    cases.begin_review(session, case, actor=principal.actor)
    case.version += 1
    audit.record(session, subject=cases.subject(case.id), actor=principal.actor, action=action, data=data)


def _result(session: Session, case: Case, rows: list[CaseCell], wanted: set[str]) -> ChangeResult:
    session.flush()
    return ChangeResult(
        case_version=case.version,
        cells=cases.cell_views_of(session, rows, wanted),
        differential=cases.differential_of(rows),
        changes=sum(not change.undone for change in repository.changes(session, case.id)),
    )
