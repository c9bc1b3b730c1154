"""A signed record as a FHIR R4B Bundle; built from the kept model library, so that nothing invalid gets out."""

import base64
from datetime import datetime
from typing import Any, Final

from fhir.resources.R4B.bundle import Bundle

from shared.contracts.analysis import ClassShare, Flag
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus, SignedRecord
from shared.reporting.findings import Statement, statements

_LOINC: Final = "http://loinc.org"
_UCUM: Final = "http://unitsofmeasure.org"
_INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_NS: Final = "urn:hematovision"
_PANEL, _SMEAR_FINDING, _NARRATIVE, _NRBC = "57782-5", "5909-7", "18314-5", "19048-8"
_OBSERVED: Final = {
    ReportStatus.AMENDED: "amended",
    ReportStatus.APPENDED: "amended",
    ReportStatus.CORRECTED: "corrected",
    ReportStatus.ENTERED_IN_ERROR: "entered-in-error",
}
Json = dict[str, Any]  # FHIR is a tree of every JSON type


def fhir_bundle(record: SignedRecord, *, pdf: bytes, thumbnails: dict[str, bytes]) -> bytes:
    """Return the Bundle as JSON: DiagnosticReport, Observations, Media and Practitioner; no Patient."""
    signed_at = record.signature.signed_at
    practitioner = _address("practitioner", record)
    observations = [_share(record, cls, share) for cls, share in record.differential.items()]
    if record.not_gradable is None:
        observations.append(_observation(record, "nrbc", _code(_NRBC, "Nucleated red cells/100 leukocytes")))
        observations[-1]["valueQuantity"] = _quantity(record.nrbc_per_100_wbc, "/100{WBCs}", "per 100 white cells")
    observations += [_flag(record, flag) for flag in record.flags]
    if record.findings is not None:
        observations += [_finding(record, statement) for statement in statements(record.findings)]
    media = [
        (_address(f"media-{cell.cell_id}", record), _media(record, cell.cell_id, cell.cls, thumbnails[cell.cell_id]))
        for cell in record.key_cells
        if cell.cell_id in thumbnails
    ]
    named = [(_address(observation.pop("_name"), record), observation) for observation in observations]
    report: Json = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": f"{_NS}:report", "value": record.report_id}],
        "status": record.status.value,
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "HM"}]}],
        "code": _code(_PANEL, "White-cell differential panel, manual count"),
        "effectiveDateTime": _moment(signed_at),
        "issued": _moment(signed_at),
        "resultsInterpreter": [{"reference": practitioner}],
        "conclusion": _conclusion(record),
        "presentedForm": [
            {"contentType": "application/pdf", "data": base64.b64encode(pdf).decode(), "title": "Blood smear report"}
        ],
    }
    if named:
        report["result"] = [{"reference": address} for address, _ in named]
    if media:
        report["media"] = [{"link": {"reference": address}} for address, _ in media]
    reader = {
        "resourceType": "Practitioner",
        "name": [{"text": record.signature.reader_name}],
        "qualification": [{"code": {"text": record.signature.reader_role}}],
    }
    entries = [(_address("report", record), report), *named, *media, (practitioner, reader)]
    bundle: Json = {
        "resourceType": "Bundle",
        "type": "collection",
        "identifier": {"system": f"{_NS}:report-version", "value": f"{record.report_id}:{record.version}"},
        "timestamp": _moment(signed_at),
        "entry": [{"fullUrl": address, "resource": resource} for address, resource in entries],
    }
    if tags := _tags(record):
        bundle["meta"] = {"tag": tags}
    text: str = Bundle.model_validate(bundle).model_dump_json(exclude_none=True)
    return text.encode()


def _conclusion(record: SignedRecord) -> str:
    if record.amendment is None:
        return record.impression
    return f"{record.impression}\nReplaces version {record.amendment.of_version}: {record.amendment.reason}"


def _tags(record: SignedRecord) -> list[Json]:
    words = {"pseudo-smear": record.pseudo, "synthetic": record.synthetic}
    tags = [{"system": f"{_NS}:mark", "code": word} for word, holds in words.items() if holds]
    if tags:
        tags.append({"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"})
    return tags


def _observation(record: SignedRecord, name: str, code: Json) -> Json:
    return {
        "_name": name,
        "resourceType": "Observation",
        "status": _OBSERVED.get(record.status, "final"),
        "code": code,
        "effectiveDateTime": _moment(record.signature.signed_at),
        "performer": [{"reference": _address("practitioner", record)}],
    }


def _share(record: SignedRecord, cls: CellClass, share: ClassShare) -> Json:
    code = _code(cls.info.loinc, f"{cls.info.name}/100 leukocytes") if cls.info.loinc else {"text": cls.info.name}
    observation = _observation(record, f"class-{cls.value}", code)
    observation["valueQuantity"] = _quantity(round(share.percent, 2), "%", "%")
    observation["component"] = [
        {"code": {"text": "95 % interval, low"}, "valueQuantity": _quantity(round(share.low, 2), "%", "%")},
        {"code": {"text": "95 % interval, high"}, "valueQuantity": _quantity(round(share.high, 2), "%", "%")},
        {"code": {"text": "cells counted in this class"}, "valueInteger": share.count},
    ]
    return observation


def _flag(record: SignedRecord, flag: Flag) -> Json:
    observation = _observation(record, f"flag-{flag.id}", _code(_SMEAR_FINDING, "Smear finding"))
    dismissed = record.dismissed_flags.get(flag.id)
    observation["valueString"] = f"{flag.id}: {flag.evidence.text}"
    observation["interpretation"] = [{"text": flag.severity.value}]
    if dismissed is not None:
        observation["note"] = [{"text": f"Dismissed by the reader: {dismissed}"}]
    return observation


def _finding(record: SignedRecord, statement: Statement) -> Json:
    name = statement.name[:1].upper() + statement.name[1:]
    code = _code(statement.loinc, name) if statement.loinc else {"text": name}
    observation = _observation(record, f"finding-{statement.key}", code)
    if (measure := statement.measure) is not None:
        observation["valueQuantity"] = _quantity(round(measure.value, 2), measure.ucum, measure.unit)
        limits = (("95 % interval, low", measure.low), ("95 % interval, high", measure.high))
        components = [
            {"code": {"text": text}, "valueQuantity": _quantity(round(value, 2), measure.ucum, measure.unit)}
            for text, value in limits
            if value is not None
        ]
        if components:
            observation["component"] = components
    elif statement.grade is not None:
        observation["valueCodeableConcept"] = {"text": statement.words}
        observation["component"] = [{"code": {"text": "ICSH grade, 0 to 3"}, "valueInteger": statement.grade}]
    else:
        observation["valueString"] = statement.words
    if statement.abnormal:
        coding = {"system": _INTERPRETATION, "code": "A", "display": "Abnormal"}
        observation["interpretation"] = [{"coding": [coding]}]
    notes = [statement.words] if statement.measure else []
    if notes := [*notes, *([statement.remark] if statement.remark else [])]:
        observation["note"] = [{"text": text} for text in notes]
    return observation


def _media(record: SignedRecord, cell_id: str, cls: CellClass, image: bytes) -> Json:
    return {
        "resourceType": "Media",
        "status": "completed",
        "createdDateTime": _moment(record.signature.signed_at),
        "reasonCode": [{"text": cls.info.name}],
        "content": {"contentType": "image/png", "data": base64.b64encode(image).decode(), "title": f"cell {cell_id}"},
    }


def _quantity(value: float, code: str, unit: str) -> Json:
    return {"value": value, "unit": unit, "system": _UCUM, "code": code}


def _code(loinc: str, text: str) -> Json:
    return {"coding": [{"system": _LOINC, "code": loinc}], "text": text}


def _address(name: str, record: SignedRecord) -> str:
    return f"{_NS}:{record.report_id}:{record.version}:{name}"


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
