"""From a signed record to what the hospital gets: PDF, FHIR and HL7 in one sealed, signed bundle."""

import hashlib
import io
from dataclasses import dataclass

import structlog
from pyhanko.pdf_utils.reader import PdfFileReader

from server.cases import service as cases
from server.cases import viewing
from server.models import Case, Report
from server.reports import service
from server.reports.fhir import fhir_bundle
from server.reports.hl7 import oru_message
from server.reports.pdf import typeset_report
from server.reports.signing import DocumentSigner
from server.runtime import Runtime
from shared.contracts.analysis import Quality
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import ClinicalContext
from shared.contracts.report import FeedbackLabel, SignedRecord
from shared.crypto.envelope import EnvelopePublicKey
from shared.reporting import bundle

_log = structlog.get_logger()
_ACTOR = "system"


@dataclass(frozen=True)
class _Loaded:
    report: Report
    case: Case
    hospital_name: str
    cell_numbers: dict[str, int]
    receiver: EnvelopePublicKey


def render(runtime: Runtime, report_id: str) -> None:
    """Render, seal and store one report; a report that stands rendered is left alone.

    No transaction is open while files are made.
    """
    with runtime.database.session(read_only=True) as session:
        report, case = service.get_for_rendering(session, report_id)
        if report.rendered_at is not None:
            return
        loaded = _Loaded(
            report=report,
            case=case,
            hospital_name=cases.hospital_name(session, case.hospital_id),
            cell_numbers=cases.cell_numbers(session, case.id),
            receiver=EnvelopePublicKey.from_base64(service.envelope_key_for(session, case)),
        )
    files, pages = _files(runtime, loaded)
    sealed = bundle.seal_bundle(
        SignedRecord.model_validate(report.record),
        report.record_signature,
        files,
        tuple(FeedbackLabel.model_validate(label) for label in report.feedback),
        sign=runtime.vault.sign,
        receiver=loaded.receiver,
    )
    pdf_sha256, sealed_sha256 = _sha256(files[bundle.PDF]), _sha256(sealed)
    runtime.store.put(service.file_key(report, service.PDF_NAME, pdf_sha256), files[bundle.PDF])
    runtime.store.put(service.file_key(report, service.BUNDLE_NAME, sealed_sha256), sealed)
    with runtime.database.session() as session:
        service.rendered(
            session,
            report_id,
            pages=pages,
            pdf_sha256=pdf_sha256,
            bundle_sha256=sealed_sha256,
            bundle_size=len(sealed),
        )
    _log.info("report.rendered", report_id=report_id, case_id=report.case_id, pages=pages, size=len(sealed))


def _files(runtime: Runtime, loaded: _Loaded) -> tuple[dict[str, bytes], int]:
    record, case = SignedRecord.model_validate(loaded.report.record), loaded.case
    unsigned, thumbnails = typeset_report(
        record,
        context=ClinicalContext.model_validate(case.context),
        quality=Quality.model_validate(case.quality),
        priority=case.priority,
        hospital_name=loaded.hospital_name,
        received_at=case.received_at,
        record_sha256=_sha256(canonical_bytes(record)),
        cell_numbers=loaded.cell_numbers,
        read_image=viewing.images_of(runtime, case, actor=_ACTOR),
    )
    pages = int(PdfFileReader(io.BytesIO(unsigned)).root["/Pages"]["/Count"])
    signer = DocumentSigner(runtime.vault.document_key())
    pdf = signer.sign(unsigned, pages=pages, signature=record.signature, identifier=f"report {record.report_id}")
    return {
        bundle.PDF: pdf,
        bundle.FHIR: fhir_bundle(record, pdf=pdf, thumbnails=thumbnails),
        bundle.HL7: oru_message(record, pdf=pdf),
    }, pages


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
