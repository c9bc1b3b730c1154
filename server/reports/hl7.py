"""A signed record as an HL7 v2.5.1 ORU^R01, the PDF in an OBX of type ED; the PID stays empty until the hospital."""

import base64
from datetime import datetime
from typing import Final

from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus, SignedRecord
from shared.reporting.findings import statements
from shared.reporting.hl7 import SEGMENT_END, escape

_STATUS: Final = {
    ReportStatus.PRELIMINARY: "P",
    ReportStatus.FINAL: "F",
    ReportStatus.AMENDED: "C",
    ReportStatus.CORRECTED: "C",
    ReportStatus.APPENDED: "F",
    ReportStatus.CANCELLED: "X",
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
    bodies = [*_observations(record), *_flags(record), *_findings(record), _impression(record), _pdf(pdf)]
    # Of a smear without result the order is cancelled; what says so is itself final.
    each = "F" if record.not_gradable else status
    segments += [f"OBX|{number}|{body}|||{each}|||{at}" for number, body in enumerate(bodies, start=1)]
    return (SEGMENT_END.join(segments) + SEGMENT_END).encode()


def _observations(record: SignedRecord) -> list[str]:
    """Return OBX-2 to 8 of the differential: value, unit and 95 % interval in OBX-5, 6 and 7."""
    if record.not_gradable:
        return []
    lines = [
        f"NM|{_code(cls)}||{share.percent:.1f}|%^percent^UCUM|{share.low:.1f}-{share.high:.1f}|"
        for cls, share in record.differential.items()
    ]
    nrbc = f"{record.nrbc_per_100_wbc:.1f}|/100{{WBCs}}^per 100 WBC^UCUM||"
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
        lines.append(f"ST|5909-7^Smear finding^LN||{text}|||")
    return lines


def _findings(record: SignedRecord) -> list[str]:
    """Return OBX-2 to 8 of what was found beside the differential; an abnormal one is flagged in OBX-8.

    What a figure rests on, and what to mind, follows it as text under the same code.
    """
    lines = []
    for statement in statements(record.findings) if record.findings else []:
        name, flag = escape(statement.name), "A" if statement.abnormal else ""
        code = f"{statement.loinc}^{name}^LN" if statement.loinc else f"{statement.key}^{name}^L"
        text = escape(f"{statement.words}. {statement.remark}" if statement.remark else statement.words)
        if (measure := statement.measure) is not None:
            interval = "" if measure.low is None else f"{measure.low:.2f}-{measure.high:.2f}"
            unit = f"{measure.ucum}^{escape(measure.unit)}^UCUM"
            lines.append(f"NM|{code}||{measure.value:.2f}|{unit}|{interval}|{flag}")
            flag = ""
        kind = "TX" if statement.key.startswith("text-") else "ST"
        lines.append(f"{kind}|{code}||{text}|||{flag}")
    return lines


def _impression(record: SignedRecord) -> str:
    text = record.impression
    if record.amendment is not None:
        text += f"\nReplaces version {record.amendment.of_version}: {record.amendment.reason}"
    return f"TX|18314-5^Smear narrative^LN||{escape(text)}|||"


def _pdf(pdf: bytes) -> str:
    content = base64.b64encode(pdf).decode()
    return f"ED|PDF^Blood smear report^L||^application^pdf^Base64^{content}|||"


def _moment(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S}+0000"
