"""A reader's work on a case: change classes, accept them, write an impression, sign out."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.cases.sight import require_open
from server.cases.views import flag_views
from server.insights import measures
from server.models import Case, ChangeKind, FlagDecision
from server.models.base import utc_now
from server.outbox import service as outbox
from server.reports import service as reports
from server.reviews import amending, drafts, findings, looking, repository, second_opinions, steps
from server.reviews.schemas import ChangeView, Done, FlagDecisionInput, SignInput
from server.reviews.steps import Step
from server.runtime import Runtime
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus, Signature
from shared.text import typed

IMPRESSION_LIMIT = 4000


def reclassify(
    session: Session,
    principal: Principal,
    case_id: str,
    *,
    cell_ids: list[str],
    label: CellClass,
    idempotency_key: str,
) -> Done:
    """Give cells another class, or confirm the class of cells that no reader has set; both are changes on record.

    The same key again changes nothing and returns the same cells.

    Raises:
        NotFoundError: a cell is not of this case; nothing was changed.
        ConflictError: this reader does not hold the case.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"set:{case_id}:{idempotency_key}"
    if (before := steps.done_before(session, case, act)) is not None:
        return before
    wanted = steps.pick(cases.cells_named(session, case_id, cell_ids), cell_ids)
    changed = [cell for cell in wanted if cell.current_class is not label or cell.changed_by is None]
    if changed:
        moved = [Step(cell, label) for cell in changed]
        steps.take(session, case, principal, kind=ChangeKind.CLASS, act=act, steps=moved)
        labels = {cell.cell_id: label.value for cell in changed}
        steps.note(session, case, principal, action="cells.reclassified", data={"labels": labels})
    return steps.done(case, wanted)


def accept(session: Session, principal: Principal, case_id: str, *, cell_ids: list[str], idempotency_key: str) -> Done:
    """Confirm cells as they are named now: each is on record as looked at, with the class that it has.

    Raises:
        NotFoundError: a cell is not of this case; nothing was changed.
        ConflictError: this reader does not hold the case.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"accept:{case_id}:{idempotency_key}"
    if (before := steps.done_before(session, case, act)) is not None:
        return before
    wanted = steps.pick(cases.cells_named(session, case_id, cell_ids), cell_ids)
    confirmed = [cell for cell in wanted if cell.changed_by is None]
    if confirmed:
        kept = [Step(cell, cell.current_class) for cell in confirmed]
        steps.take(session, case, principal, kind=ChangeKind.CLASS, act=act, steps=kept)
        labels = {cell.cell_id: cell.current_class.value for cell in confirmed}
        steps.note(session, case, principal, action="cells.accepted", data={"labels": labels})
    return steps.done(case, wanted)


def history(session: Session, principal: Principal, case_id: str) -> list[ChangeView]:
    """Return every change of the case, newest first; nothing is ever left out.

    Raises:
        ConflictError: this person is to read the case blind.
    """
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    numbers = cases.cell_numbers(session, case_id)
    return [
        ChangeView(
            cell_id=change.cell_id,
            number=numbers[change.cell_id],
            kind=change.kind,
            stands=change.stands,
            previous=change.previous,
            label=change.label,
            by=name,
            at=change.at,
            undone=change.undone,
        )
        for change, name in repository.named_changes(session, case_id)
    ]


def impression(session: Session, principal: Principal, case_id: str) -> str:
    """Return the impression as this reader last saved it, or as the last signed reading holds it; none to the blind.

    What another reader has begun and not signed is nobody's to sign.
    """
    if cases.sight(session, principal, cases.visible_case(session, principal, case_id)).blind:
        return ""
    own = repository.review(session, case_id, principal.user_id)
    shown = own or repository.signed_review(session, case_id)
    return shown.impression if shown else ""


def save_impression(
    session: Session, principal: Principal, case_id: str, text: str, *, over: Sequence[str] | None = None
) -> None:
    """Keep the reader's draft; it is not part of the record until signed. ``over``: see `drafts.require_base`."""
    case = cases.held_case(session, principal, case_id)
    review = steps.reading(session, case, principal)
    cleaned = _impression(text, required=False)
    drafts.require_base(review.impression, cleaned, over)
    review.impression = cleaned


def sign(session: Session, principal: Principal, runtime: Runtime, case_id: str, signing: SignInput) -> str:
    """Sign the case out as a final report and return the report's id; all of it in the caller's transaction.

    The same content under the same key again, after an answer that was lost, changes nothing and returns the same id.

    Raises:
        UnauthenticatedError: the password is wrong.
        ConflictError: the case changed since the page was loaded, this reader does not hold it, a second opinion is
            open or was given since, the flags are others than were shown or say something else, or a doubtful cell is
            left unreviewed or a class group unseen.
        DataInvalidError: no impression, or a dismissed flag without a reason.
    """
    accounts.check_password(session, principal.user_id, signing.password)
    asked = steps.asked("sign", signing)
    if (before := reports.made_before(session, principal, case_id, asked)) is not None:
        return before
    case = cases.held_case(session, principal, case_id)
    if case.version != signing.case_version:
        raise ConflictError("The case was changed since you loaded it. Look at it again, then sign.")
    second_opinions.require_shown(session, case_id, signing.opinions)
    _require_flags_shown(case, signing.decisions)
    review = steps.reading(session, case, principal)
    looking.require_ready(cases.outlines_of(session, case_id), review)
    now, text = utc_now(), _impression(signing.impression, required=True)
    dismissed = _decide(session, case, principal, signing.decisions, now)
    review.impression, review.signed_at = text, now
    cases.begin_review(session, case, actor=principal.actor)
    cases.advance(session, case, CaseState.READY, CaseState.SIGNED, actor=principal.actor)
    case.signed_at, case.lease_until = now, None
    amended = cases.amending(case)
    cases.leave_amending(case, back=False)
    report = reports.issue(
        session,
        runtime.vault,
        case=case,
        cells=cases.cells_of(session, case_id),
        signed_by=principal.user_id,
        signature=Signature(reader_name=principal.display_name, reader_role=principal.role.label, signed_at=now),
        impression=text,
        dismissed=dismissed,
        findings=findings.for_report(session, case_id),
        status=amended.status if amended else ReportStatus.FINAL,
        amendment=amending.amendment_of(amended),
        asked=asked,
    )
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action="case.signed",
        data={"report_id": report.id, "version": report.version, "labels_corrected": len(report.feedback)},
    )
    measures.measure(session, case)
    outbox.add(session, "reports.render", {"report_id": report.id})
    return report.id


def _require_flags_shown(case: Case, decisions: list[FlagDecisionInput]) -> None:
    """Return if the signer had the case's flags before them, all as they are now: further cells change them."""
    if {(one.flag_id, one.shown) for one in decisions} != {(flag.id, flag.shown) for flag in flag_views(case)}:
        raise ConflictError(
            "The flags of this case have changed since you loaded it. Reload the page, look at the flags, then sign."
        )


def _decide(
    session: Session, case: Case, principal: Principal, decisions: list[FlagDecisionInput], now: datetime
) -> dict[str, str]:
    """Keep the reader's word on the flags and return the dismissed ones with their reasons."""
    dismissed: dict[str, str] = {}
    for decision in decisions:
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
    cleaned = typed(text, lines=True)
    if required and not cleaned:
        raise DataInvalidError("Write your impression before you sign.")
    if len(cleaned) > IMPRESSION_LIMIT:
        raise DataInvalidError(f"The impression is longer than {IMPRESSION_LIMIT} letters; shorten it.")
    return cleaned
