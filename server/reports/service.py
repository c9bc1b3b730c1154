"""Signed reports: issue, show, deliver, acknowledge."""

from collections.abc import Collection
from datetime import datetime

from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.models import Case, CaseCell, Report
from server.models.base import new_id, utc_now
from server.reports import key_cells, repository
from server.reports.schemas import ReportView
from server.runtime import Runtime
from server.vault.port import Vault
from shared.contracts.analysis import Flag
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError
from shared.contracts.findings import Findings
from shared.contracts.ontology import CellClass
from shared.contracts.report import (
    Acknowledgement,
    Amendment,
    FeedbackLabel,
    NotGradable,
    ReportNotice,
    ReportStatus,
    Signature,
    SignedRecord,
)
from shared.statistics import denominator, per_100_white_cells

PDF_NAME = "report.pdf"
BUNDLE_NAME = "bundle.sealed"


def issue(
    session: Session,
    vault: Vault,
    *,
    case: Case,
    cells: list[CaseCell],
    signed_by: str,
    signature: Signature,
    impression: str,
    dismissed: dict[str, str],
    findings: Findings | None = None,
    status: ReportStatus = ReportStatus.FINAL,
    amendment: Amendment | None = None,
    asked: str | None = None,
) -> Report:
    """Make the immutable record of a signed case, with the centre's signature and the labels that travel home."""
    version = repository.latest_version(session, case.id) + 1
    classes = [cell.current_class for cell in cells]
    flags = tuple(Flag.model_validate(flag) for flag in case.flags)
    record = SignedRecord(
        report_id=new_id(),
        version=version,
        case_id=case.id,
        hospital_id=case.hospital_id,
        status=status,
        differential=cases.differential_of(cells),
        cells_counted=denominator(classes),
        nrbc_per_100_wbc=per_100_white_cells(CellClass.ERYTHROBLAST, classes) or 0.0,
        flags=flags,
        dismissed_flags=dismissed,
        impression=impression,
        key_cells=key_cells.choose(cells, [flag for flag in flags if flag.id not in dismissed]),
        model_version=case.model_version,
        untrained_classes=tuple(CellClass(value) for value in case.untrained_classes),
        signature=signature,
        pseudo=case.pseudo,
        synthetic=case.synthetic,
        findings=findings,
        amendment=amendment,
    )
    return _keep(session, vault, record, signed_by, asked, _feedback(case, cells, signature.reader_role, version))


def issue_without_result(
    session: Session,
    vault: Vault,
    *,
    case: Case,
    signed_by: str,
    signature: Signature,
    why: NotGradable,
    amendment: Amendment | None = None,
    asked: str | None = None,
) -> Report:
    """Make the record of a case that could not be read: why, and what the rules say of its images; nothing else."""
    flags = (Flag.model_validate(flag) for flag in case.flags)
    record = SignedRecord(
        report_id=new_id(),
        version=repository.latest_version(session, case.id) + 1,
        case_id=case.id,
        hospital_id=case.hospital_id,
        status=ReportStatus.CANCELLED,
        differential={},
        cells_counted=0,
        nrbc_per_100_wbc=0.0,
        flags=tuple(flag for flag in flags if flag.kind == "quality"),
        impression=f"Not gradable: please send the glass slide. {why.words}",
        key_cells=(),
        model_version=case.model_version,
        untrained_classes=tuple(CellClass(value) for value in case.untrained_classes),
        signature=signature,
        pseudo=case.pseudo,
        synthetic=case.synthetic,
        not_gradable=why,
        amendment=amendment,
    )
    return _keep(session, vault, record, signed_by, asked, [])


def _keep(
    session: Session,
    vault: Vault,
    record: SignedRecord,
    signed_by: str,
    asked: str | None,
    feedback: list[FeedbackLabel],
) -> Report:
    report = Report(
        id=record.report_id,
        case_id=record.case_id,
        hospital_id=record.hospital_id,
        version=record.version,
        status=record.status,
        record=record.model_dump(mode="json", by_alias=True),
        record_signature=vault.sign(canonical_bytes(record)),
        feedback=[label.model_dump(mode="json") for label in feedback],
        signed_by=signed_by,
        asked=asked,
    )
    session.add(report)
    return report


def _feedback(case: Case, cells: list[CaseCell], reader_role: str, version: int) -> list[FeedbackLabel]:
    return [
        FeedbackLabel(
            case_id=case.id,
            cell_id=cell.cell_id,
            label=cell.current_class,
            previous=cell.ai_class,
            reader_role=reader_role,
            report_version=version,
            field=cell.field if cell.added_by else None,
            box=(cell.x0, cell.y0, cell.x1, cell.y1) if cell.added_by else None,
            instead_of=tuple(cell.parents),
        )
        for cell in cells
        if cell.current_class is not cell.ai_class
    ]


def made_before(session: Session, principal: Principal, case_id: str, asked: str | None) -> str | None:
    """Return the id of the report that this person's very signature made already; None: it made none."""
    return repository.id_of_asked(session, case_id, principal.user_id, asked) if asked else None


def list_reports(session: Session, principal: Principal) -> list[ReportView]:
    """Return the reports this person may see, newest first."""
    return [_view(line) for line in _listed(session, principal)]


def view(session: Session, principal: Principal, report_id: str) -> ReportView:
    """Return one report."""
    found = _listed(session, principal, report_id=report_id)
    if not found:
        raise NotFoundError("There is no such report. Go back to the list.")
    return _view(found[0])


def latest_of(session: Session, principal: Principal, case_ids: Collection[str]) -> dict[str, ReportView]:
    """Return case id → its newest report, of those cases that have one."""
    scope, shown = _scope(principal), set(case_ids) - cases.blind_cases(session, principal) if case_ids else set()
    found = repository.latest_of(session, shown, scope=scope) if shown else []
    return {line.report.case_id: _view(line) for line in found}


def versions(session: Session, principal: Principal, case_id: str) -> list[ReportView]:
    """Return every version of a case's report, newest first."""
    found = _listed(session, principal, case_id=case_id)
    return sorted((_view(line) for line in found), key=lambda view: -view.version)


def _listed(
    session: Session, principal: Principal, *, report_id: str | None = None, case_id: str | None = None
) -> list[repository.Listed]:
    """Return what this person may see: nothing of a case whose first reading is hidden from them."""
    found = repository.listed(session, scope=_scope(principal), report_id=report_id, case_id=case_id)
    hidden = cases.blind_cases(session, principal)
    return [line for line in found if line.report.case_id not in hidden]


def pdf(session: Session, runtime: Runtime, principal: Principal, report_id: str) -> bytes:
    """Return the centre's copy of the report as PDF: without the patient's identity."""
    report = repository.get(session, report_id, scope=_scope(principal))
    if report is None or report.case_id in cases.blind_cases(session, principal):
        raise NotFoundError("There is no such report. Go back to the list.")
    if report.pdf_sha256 is None:
        raise ConflictError("The report is still being made; try again in a few seconds.")
    return runtime.store.get(file_key(report, PDF_NAME, report.pdf_sha256))


def file_key(report: Report, name: str, sha256: str) -> str:
    """Return where a rendering stands in the object store; the hash in it keeps two workers from mixing theirs."""
    return f"reports/{report.hospital_id}/{report.id}/v{report.version}/{sha256[:16]}-{name}"


def get_for_rendering(session: Session, report_id: str) -> tuple[Report, Case]:
    """Return a report and its case, for the task that renders it."""
    report = repository.get(session, report_id, scope=None)
    if report is None:
        raise NotFoundError("There is no such report.")
    return report, cases.case_for_hospital(session, hospital_id=report.hospital_id, case_id=report.case_id)


def envelope_key_for(session: Session, case: Case) -> str:
    """Return the public envelope key (base64) that the case's report is sealed to."""
    node = repository.receiving_node(session, case)
    if node is None:
        raise ConflictError("The hospital has no approved node to seal the report to; approve one, it is then sent.")
    return node.envelope_key


def rendered(
    session: Session, report_id: str, *, pages: int, pdf_sha256: str, bundle_sha256: str, bundle_size: int
) -> None:
    """Note that a report's files stand in the store; the first note wins."""
    report = repository.get(session, report_id, scope=None, lock=True)
    if report is None or report.rendered_at is not None:
        return
    report.rendered_at, report.pages, report.pdf_sha256 = utc_now(), pages, pdf_sha256
    report.bundle_key = file_key(report, BUNDLE_NAME, bundle_sha256)
    report.bundle_sha256, report.bundle_size = bundle_sha256, bundle_size
    audit.record(
        session,
        subject=cases.subject(report.case_id),
        actor="system",
        action="report.rendered",
        data={"report_id": report.id, "version": report.version, "pdf_sha256": pdf_sha256},
    )


def waiting(session: Session, *, hospital_id: str) -> list[ReportNotice]:
    """Return what a hospital has not acknowledged yet."""
    return [
        ReportNotice(
            report_id=report.id,
            version=report.version,
            case_id=report.case_id,
            sha256=report.bundle_sha256 or "",
            size=report.bundle_size or 0,
        )
        for report in repository.waiting(session, hospital_id)
    ]


def content(session: Session, runtime: Runtime, *, hospital_id: str, node_id: str, report_id: str) -> bytes:
    """Return the sealed bundle; the first fetch marks the case delivered, later ones change nothing."""
    report = _own(session, hospital_id, report_id)
    if report.bundle_key is None:
        raise NotFoundError("The report is not ready yet; ask again later.")
    sealed = runtime.store.get(report.bundle_key)
    if report.delivered_at is None:
        report.delivered_at = utc_now()
        case = cases.case_for_hospital(session, hospital_id=hospital_id, case_id=report.case_id)
        if case.state is CaseState.SIGNED and _newest(session, report):
            cases.advance(session, case, CaseState.DELIVERED, actor=f"node:{node_id}")
    return sealed


def acknowledge(
    session: Session, *, hospital_id: str, node_id: str, report_id: str, acknowledgement: Acknowledgement
) -> None:
    """Take the hospital's word that the report is verified and stored; the case closes. Repeating is harmless."""
    report = _own(session, hospital_id, report_id)
    if (report.version, report.bundle_sha256) != (acknowledgement.version, acknowledgement.sha256):
        raise ConflictError("The acknowledgement is for another version of the report; fetch it again.")
    if report.acknowledged_at is not None:
        return
    actor, now = f"node:{node_id}", utc_now()
    report.acknowledged_at, report.labels_joined = now, acknowledgement.labels_joined
    report.delivered_at = report.delivered_at or now
    audit.record(
        session,
        subject=cases.subject(report.case_id),
        actor=actor,
        action="report.acknowledged",
        data={"report_id": report.id, "version": report.version, "labels_joined": acknowledgement.labels_joined},
    )
    case = cases.case_for_hospital(session, hospital_id=hospital_id, case_id=report.case_id)
    if _newest(session, report):
        _close(session, case, actor, now)


def _newest(session: Session, report: Report) -> bool:
    """Whether no later version follows: an earlier one that comes home late moves no case."""
    return report.version == repository.latest_version(session, report.case_id)


def _close(session: Session, case: Case, actor: str, now: datetime) -> None:
    if case.state is CaseState.SIGNED:
        cases.advance(session, case, CaseState.DELIVERED, actor=actor)
    if case.state is CaseState.DELIVERED:
        cases.advance(session, case, CaseState.ACKNOWLEDGED, CaseState.CLOSED, actor=actor)
    if case.state in {CaseState.CLOSED, CaseState.REJECTED}:
        case.closed_at = now


def _own(session: Session, hospital_id: str, report_id: str) -> Report:
    report = repository.get(session, report_id, scope=hospital_id, lock=True)
    if report is None:
        raise NotFoundError("There is no such report for this hospital.")
    return report


def _scope(principal: Principal) -> repository.Scope:
    if principal.role is Role.HOSPITAL_IT and principal.hospital_id is not None:
        return principal.hospital_id
    if principal.role in {Role.HEMATOLOGIST, Role.ADMIN, Role.AUDITOR}:
        return None
    raise ForbiddenError("Your role does not open reports. Ask an administrator if you need to see one.")


def _view(line: repository.Listed) -> ReportView:
    report, record = line.report, SignedRecord.model_validate(line.report.record)
    return ReportView(
        id=report.id,
        case_id=report.case_id,
        hospital_id=report.hospital_id,
        hospital_name=line.hospital_name,
        version=report.version,
        status=report.status,
        record=record,
        signed_by=record.signature.reader_name,
        created_at=report.created_at,
        rendered_at=report.rendered_at,
        pages=report.pages,
        pdf_sha256=report.pdf_sha256,
        delivered_at=report.delivered_at,
        acknowledged_at=report.acknowledged_at,
        feedback_count=len(report.feedback),
        labels_joined=report.labels_joined,
    )
