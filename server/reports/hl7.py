"""A signed record as an HL7 v2.5.1 ORU^R01, the PDF in an OBX of type ED; the PID stays empty until the hospital."""

import base64
from datetime import datetime
from typing import Final

from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus, SignedRecord
from shared.reporting.hl7 import SEGMENT_END, escape

_STATUS: Final = {
    ReportStatus.PRELIMINARY: "P",
    ReportStatus.FINAL: "F",
    ReportStatus.AMENDED: "C",
    ReportStatus.CORRECTED: "C",
    ReportStatus.APPENDED: "F",
    ReportStatus.ENTERED_IN_ERROR: "D",
}
_PANEL: Final = "57782-5^White-cell differential^LN"


def oru_message(record: SignedRecord, *, pdf: bytes) -> bytes:
    """Return the message, UTF-8, segments ended by a carriage return."""
    status, at = _STATUS[record.status], _moment(record.signature.signed_at)
    processing = "T" if record.pseudo or record.synthetic else "P"
    reader = escape(record.signature.reader_name)
    message_id = f"{record.report_id[:17]}-{record.version}"
    sender = f"MSH|^~\\&|HEMATOVISION|CENTRE|LIS|{escape(record.hospital_id)}|{at}"
    order = f"OBR|1||{record.report_id}^HEMATOVISION|{_PANEL}|||{at}"
    segments = [
        f"{sender}||ORU^R01^ORU_R01|{message_id}|{processing}|2.5.1||||||UNICODE UTF-8",
        "PID|1",
        f"{order}|||||||||||||||{at}||HM|{status}|||||||&{reader}",
    ]
    bodies = [*_observations(record), *_flags(record), _impression(record), _pdf(pdf)]
    segments += [f"OBX|{number}|{body}||||{status}|||{at}" for number, body in enumerate(bodies, start=1)]
    return (SEGMENT_END.join(segments) + SEGMENT_END).encode()


def _observations(record: SignedRecord) -> list[str]:
    """Return OBX-2 to 7 of the differential: value, unit and 95 % interval in OBX-5, 6 and 7."""
    lines = [
        f"NM|{_code(cls)}||{share.percent:.1f}|%^percent^UCUM|{share.low:.1f}-{share.high:.1f}"
        for cls, share in record.differential.items()
    ]
    nrbc = f"{record.nrbc_per_100_wbc:.1f}|/100{{WBCs}}^per 100 WBC^UCUM|"
    return [*lines, f"NM|{_code(CellClass.ERYTHROBLAST)}||{nrbc}"]


def _code(cls: CellClass) -> str:
    name = escape(cls.info.name)
    return f"{cls.info.loinc}^{name}^LN" if cls.info.loinc else f"{cls.value}^{name}^L"


def _flags(record: SignedRecord) -> list[str]:
    lines = []
    for flag in record.flags:
        dismissed = record.dismissed_flags.get(flag.id)
        word = f" (dismissed by the reader: {dismissed})" if dismissed else ""
        text = escape(f"{flag.id}, {flag.severity.value}: {flag.evidence.text}{word}")
        lines.append(f"ST|5909-7^Smear finding^LN||{text}||")
    return lines


def _impression(record: SignedRecord) -> str:
    return f"TX|18314-5^Smear narrative^LN||{escape(record.impression)}||"


def _pdf(pdf: bytes) -> str:
    content = base64.b64encode(pdf).decode()
    return f"ED|PDF^Blood smear report^L||^application^pdf^Base64^{content}||"


def _moment(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S}+0000"
