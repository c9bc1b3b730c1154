"""Amending a signed report: the case goes back into review, and its next signature makes a new version.

Signed versions never change. What stood at the signature, labels and findings, is where the amendment begins.
"""

from typing import Final

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.cases.access import require_reader
from server.cases.lifecycle import FINISHED
from server.cases.schemas import Amending
from server.reports import service as reports
from server.reviews import second_opinions
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.contracts.report import Amendment, ReportStatus
from shared.text import typed

KINDS: Final = {
    ReportStatus.APPENDED: "An addition; what was signed stands",
    ReportStatus.AMENDED: "A changed interpretation",
    ReportStatus.CORRECTED: "An error is corrected",
}
REASON_LIMIT: Final = 500


def begin(session: Session, principal: Principal, case_id: str, *, kind: ReportStatus, reason: str) -> None:
    """Take a signed case back into review, held by this reader.

    Raises:
        ConflictError: it is not signed, or somebody amends it already, or this person is asked for an opinion that is
            blind to what was signed.
        DataInvalidError: no such kind of amendment, or no reason.
    """
    require_reader(principal)
    case = cases.visible_case(session, principal, case_id, lock=True)
    if cases.sight(session, principal, case).hides_first:
        raise ConflictError("A second opinion is asked of you, blind to the first reader: another amends the report.")
    if case.state not in FINISHED:
        raise ConflictError("Only a signed report can be amended; this case is being read.")
    said = typed(reason)
    if kind not in KINDS:
        raise DataInvalidError("Say what the new version is: an addition, a changed interpretation or a correction.")
    if not 0 < len(said) <= REASON_LIMIT:
        raise DataInvalidError(f"Say why the report is amended, in at most {REASON_LIMIT} letters; it stands in it.")
    version = reports.versions(session, principal, case_id)[0].version
    cases.reopen(session, principal, case, status=kind, of_version=version, reason=said)
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action="case.amending",
        data={"version": version, "kind": kind.value},
    )


def leave(session: Session, principal: Principal, case_id: str) -> None:
    """Leave the report as it stood.

    Raises:
        ConflictError: nothing is being amended, or something was changed already, or a second opinion is open.
    """
    case = cases.held_case(session, principal, case_id)
    begun = cases.amending(case)
    if begun is None:
        raise ConflictError("No report of this case is being amended.")
    if case.version != begun.case_version:
        raise ConflictError("Something was changed already: sign the new version, or give the case back.")
    second_opinions.require_given(session, case_id)
    cases.leave_amending(case, back=True)
    audit.record(
        session,
        subject=cases.subject(case_id),
        actor=principal.actor,
        action="case.amending_left",
        data={"version": begun.of_version},
    )


def amendment_of(begun: Amending | None) -> Amendment | None:
    """Return what the record says of it."""
    return Amendment(of_version=begun.of_version, reason=begun.reason) if begun else None
