"""Putting the patient's identity into a report, inside the hospital.

The centre's copy never holds an identity. Its PDF leaves empty form fields, the only thing its certifying signature
allows to change: filling them keeps the signature valid. FHIR gets a ``Patient``, HL7 its ``PID``.
"""

import base64
import io
import json
import re
import uuid
from pathlib import Path
from typing import Any, Final

from pyhanko.pdf_utils.generic import DictionaryObject, IndirectObject, NumberObject, pdf_name, pdf_string
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader

from shared.contracts.errors import DataInvalidError
from shared.reporting.hl7 import SEGMENT_END, escape
from shared.reporting.identity import Identity
from shared.reporting.layout import IDENTITY_BOX, IDENTITY_LINE, Room, field_name
from shared.reporting.typeset import typeset

_TEMPLATE: Final = Path(__file__).parent / "templates" / "identity.typ"
_READ_ONLY, _MULTILINE = 1, 1 << 12
_PATIENT_SYSTEM: Final = "urn:hematovision:hospital-patient-number"
Json = dict[str, Any]  # FHIR is a tree of every JSON type


def identify_pdf(pdf: bytes, identity: Identity) -> bytes:
    """Return the hospital's copy: the identity in the form fields that the centre left open, as one more revision.

    Args:
        pdf: the signed report as delivered.
        identity: who the patient is; any script that an installed font covers.

    Returns:
        The same file with an update appended; the centre's signature stays valid ("form filled").

    Raises:
        DataInvalidError: it is not a report of ours, or was filled in before.
    """
    try:
        writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
        fields = _fields(writer)
    except (PdfError, KeyError, ValueError):
        raise DataInvalidError("The file is not a report with room for an identity; fetch it again.") from None
    if any(str(field.get("/V", "")) for field in fields.values()):
        raise DataInvalidError("The report holds an identity already; start from the delivered file.")
    when = _document_date(writer)
    line_stamp: IndirectObject | None = None
    for name, field in fields.items():
        if name == field_name(1):
            stamp = _stamp(writer, IDENTITY_BOX, identity, boxed=True, when=when)
            spoken = "\n".join(f"{label}: {value}" for label, value in identity.lines)
        else:
            line_stamp = line_stamp or _stamp(writer, IDENTITY_LINE, identity, boxed=False, when=when)
            stamp, spoken = line_stamp, identity.one_line
        field["/V"] = pdf_string(spoken)
        field["/AP"] = DictionaryObject({pdf_name("/N"): stamp})
        field["/Ff"] = NumberObject(_READ_ONLY | _MULTILINE)
        writer.update_container(field)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _fields(writer: IncrementalPdfFileWriter) -> dict[str, DictionaryObject]:
    every = [field.get_object() for field in writer.root["/AcroForm"]["/Fields"]]
    found = {str(field["/T"]): field for field in every}
    ours = {name: field for name, field in found.items() if name.startswith(field_name(1))}
    if field_name(1) not in ours:
        raise ValueError("no identity field")
    return ours


def _document_date(writer: IncrementalPdfFileWriter) -> Any:  # Any: a datetime, or what an untyped library gives
    return writer.prev.document_meta_view.created


def _stamp(
    writer: IncrementalPdfFileWriter, room: Room, identity: Identity, *, boxed: bool, when: Any
) -> IndirectObject:
    """Add the set identity as a form XObject of the room's size, its fonts embedded."""
    data = {
        "width": room.width,
        "height": room.height,
        "lines": identity.lines if boxed else [],
        "line": identity.one_line,
    }
    page = PdfFileReader(io.BytesIO(typeset(_TEMPLATE, data, timestamp=when)))
    reference: IndirectObject = writer.import_page_as_xobject(page)
    return reference


def identify_fhir(bundle: bytes, identity: Identity, *, pdf: bytes | None = None) -> bytes:
    """Return the FHIR bundle with a ``Patient`` that every resource points to; ``pdf`` replaces the attached copy.

    Raises:
        DataInvalidError: it is not a FHIR bundle.
    """
    try:
        tree: Json = json.loads(bundle)
        entries: list[Json] = tree["entry"]
        resources = [entry["resource"] for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise DataInvalidError("The file is not a FHIR bundle; fetch the report again.") from None
    address = f"urn:uuid:{uuid.uuid4()}"
    subject = {"reference": address, "display": identity.name} if identity.name else {"reference": address}
    for resource in resources:
        if resource["resourceType"] in {"DiagnosticReport", "Observation", "Media"}:
            resource["subject"] = subject
        if resource["resourceType"] == "DiagnosticReport" and pdf is not None:
            for form in resource.get("presentedForm", []):
                form["data"] = base64.b64encode(pdf).decode()
                form.pop("hash", None)
    entries.append({"fullUrl": address, "resource": _patient(identity)})
    return json.dumps(tree, ensure_ascii=False).encode()


def _patient(identity: Identity) -> Json:
    patient: Json = {"resourceType": "Patient"}
    if identity.patient_id:
        patient["identifier"] = [{"system": _PATIENT_SYSTEM, "value": identity.patient_id}]
    if identity.name:
        family, _, given = identity.name.partition(",")
        name: Json = {"text": identity.name}
        if given:
            name |= {"family": family.strip(), "given": given.split()}
        patient["name"] = [name]
    patient["gender"] = identity.sex.value
    if identity.birth_date:
        patient["birthDate"] = identity.birth_date.isoformat()
    return patient


def identify_hl7(message: bytes, identity: Identity, *, pdf: bytes | None = None) -> bytes:
    """Return the ORU^R01 with its ``PID`` and order number filled in; ``pdf`` replaces the attached copy.

    Raises:
        DataInvalidError: it is not such a message.
    """
    segments = message.decode().split(SEGMENT_END)
    if not segments[0].startswith("MSH|") or not any(segment.startswith("PID|") for segment in segments):
        raise DataInvalidError("The file is not an HL7 report; fetch the report again.")
    filled = [_filled(segment, identity, pdf) for segment in segments]
    return SEGMENT_END.join(filled).encode()


def _filled(segment: str, identity: Identity, pdf: bytes | None) -> str:
    fields = segment.split("|")
    if fields[0] == "PID":
        return _pid(identity)
    if fields[0] == "OBR" and identity.order_number:
        fields[2] = escape(identity.order_number)
    if fields[0] == "OBX" and fields[2] == "ED" and pdf is not None:
        fields[5] = f"^application^pdf^Base64^{base64.b64encode(pdf).decode()}"
    return "|".join(fields)


def _pid(identity: Identity) -> str:
    family, _, given = (part.strip() for part in identity.name.partition(","))
    name = "^".join([escape(family), *(escape(part) for part in given.split()[:2])])
    born = f"{identity.birth_date:%Y%m%d}" if identity.birth_date else ""
    sex = {"female": "F", "male": "M", "other": "O"}.get(identity.sex.value, "U")
    number = f"{escape(identity.patient_id)}^^^HOSPITAL^MR" if identity.patient_id else ""
    return re.sub(r"\|+$", "", f"PID|1||{number}||{name}||{born}|{sex}")
