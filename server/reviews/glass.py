"""Not gradable, send glass: the reader signs that the smear cannot be read from its images, and why."""

from typing import Final

from pydantic import ValidationError
from sqlmodel import Session

from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.models.base import utc_now
from server.outbox import service as outbox
from server.reports import service as reports
from server.reviews import amending, second_opinions, steps
from server.reviews.schemas import GlassInput
from server.runtime import Runtime
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.contracts.report import NotGradable, Signature
from shared.text import typed

MEANING: Final = "I could not read this smear from its images and ask for the glass slide."
NOTE_LIMIT: Final = 500


def ask(session: Session, principal: Principal, runtime: Runtime, case_id: str, asked: GlassInput) -> str:
    """Sign that the smear is not gradable and return the report's id; all of it in the caller's transaction.

    Nothing need have been looked at: that it cannot be is what is signed. The record holds no differential and no
    corrected label. The same content under the same key again changes nothing and returns the same id.

    Raises:
        UnauthenticatedError: the password is wrong.
        ConflictError: the case changed since the page was loaded, this reader does not hold it, or a second opinion is
            open or was given since.
        DataInvalidError: another reason that is not said, or a note that is too long.
    """
    accounts.check_password(session, principal.user_id, asked.password)
    under = steps.asked("glass", asked)
    if (before := reports.made_before(session, principal, case_id, under)) is not None:
        return before
    case = cases.held_case(session, principal, case_id)
    if case.version != asked.case_version:
        raise ConflictError("The case was changed since you loaded it. Look at it again, then sign.")
    second_opinions.require_shown(session, case_id, asked.opinions)
    why, now = _why(asked), utc_now()
    review = steps.reading(session, case, principal)
    review.signed_at = now
    cases.begin_review(session, case, actor=principal.actor)
    cases.advance(session, case, CaseState.REJECTED, actor=principal.actor)
    case.signed_at, case.lease_until = now, None
    report = reports.issue_without_result(
        session,
        runtime.vault,
        case=case,
        signed_by=principal.user_id,
        signature=Signature(
            reader_name=principal.display_name, reader_role=principal.role.label, signed_at=now, meaning=MEANING
        ),
        why=why,
        amendment=amending.amendment_of(cases.amending(case)),
        asked=under,
    )
    cases.leave_amending(case, back=False)
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action="case.glass_asked",
        data={"report_id": report.id, "version": report.version, "reason": why.reason.value},
    )
    outbox.add(session, "reports.render", {"report_id": report.id})
    return report.id


def _why(asked: GlassInput) -> NotGradable:
    note = typed(asked.note, lines=True)
    try:
        return NotGradable(reason=asked.reason, note=note)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise DataInvalidError(str(first["ctx"]["error"])) from None
        raise DataInvalidError(f"The note is longer than {NOTE_LIMIT} letters; shorten it.") from None
