"""Findings in what a hospital's systems read: FHIR, HL7 and the page."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from server.reports.fhir import fhir_bundle
from server.reports.hl7 import oru_message
from server.reports.pdf import typeset_report
from shared.contracts.analysis import Quality
from shared.contracts.case import ClinicalContext, Priority
from shared.contracts.findings import Findings
from shared.contracts.report import Amendment, ReportStatus, Signature, SignedRecord

FOUND = Findings.model_validate(
    {
        "grades": {"spherocytes": 2, "macrocytes": 0, "auer_rods": 1},
        "schistocytes": {"counted": 1000, "schistocytes": 14},
        "platelets": {"adequacy": "decreased", "count": {"platelets": 42, "fields": 10, "factor": 15}},
        "malaria": {
            "presence": "seen",
            "species": ["vivax"],
            "stages": ["ring"],
            "parasitaemia": {"against": "red_cells", "parasites": 24, "counted": 2000},
        },
        "texts": {"red_cells": "Two | populations\n#strong[no]"},
    }
)


def _record(**changes: Any) -> SignedRecord:
    signature = Signature(reader_name="Dr. A. Reader", reader_role="hematologist", signed_at=datetime.now(UTC))
    given = {
        "report_id": "r" * 32, "version": 1, "case_id": "HV-ABCDEFGH", "hospital_id": "a",
        "status": ReportStatus.FINAL, "differential": {}, "cells_counted": 0, "nrbc_per_100_wbc": 0.0, "flags": (),
        "impression": "Fragments.", "key_cells": (), "model_version": "m-1", "untrained_classes": (),
        "signature": signature, "findings": FOUND,
    }  # fmt: skip
    return SignedRecord.model_validate(given | changes)


def _observations(record: SignedRecord) -> dict[str, Any]:
    tree = json.loads(fhir_bundle(record, pdf=b"%PDF-x", thumbnails={}))
    Bundle.model_validate(tree)
    found = {entry["fullUrl"].rpartition(":")[2]: entry["resource"] for entry in tree["entry"]}
    report = found["report"]
    assert {one["reference"].rpartition(":")[2] for one in report["result"]} <= set(found)
    return {name.removeprefix("finding-"): one for name, one in found.items() if name.startswith("finding-")}


def test_fhir_has_an_observation_for_every_finding_with_its_code() -> None:
    found = _observations(_record())
    assert set(found) == {
        "macrocytes", "spherocytes", "auer-rods", "schistocyte-count", "platelet-adequacy", "platelet-estimate",
        "malaria-presence", "malaria-species", "malaria-stage", "malaria-parasitaemia", "text-red-cells",
    }  # fmt: skip
    graded = found["spherocytes"]
    assert graded["code"]["coding"][0] == {"system": "http://loinc.org", "code": "802-9"}
    assert graded["valueCodeableConcept"]["text"] == "moderate (2+)"
    assert graded["component"][0]["valueInteger"] == 2
    assert graded["interpretation"][0]["coding"][0]["code"] == "A"
    assert "interpretation" not in found["macrocytes"]
    counted = found["schistocyte-count"]
    assert (counted["valueQuantity"]["value"], counted["valueQuantity"]["code"]) == (1.4, "%")
    assert [part["valueQuantity"]["value"] for part in counted["component"]] == [0.77, 2.34]
    assert "thrombotic microangiopathy" in counted["note"][1]["text"]
    assert found["platelet-estimate"]["valueQuantity"]["code"] == "10*9/L"
    assert found["malaria-species"]["valueString"] == "Plasmodium vivax"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:hl7apy")
def test_hl7_has_a_line_for_every_finding_and_flags_what_is_abnormal() -> None:
    from hl7apy.parser import parse_message  # its import is slow

    message = oru_message(_record(), pdf=b"%PDF-x").decode()
    parse_message(message, find_groups=True)
    lines = [line.split("|") for line in message.split("\r") if line.startswith("OBX")]
    assert [int(line[1]) for line in lines] == list(range(1, len(lines) + 1))
    assert {line[11] for line in lines} == {"F"}
    by_code: dict[str, list[list[str]]] = {}
    for line in lines:
        by_code.setdefault(line[3], []).append(line)
    (graded,) = by_code["802-9^spherocytes^LN"]
    assert (graded[2], graded[5], graded[8]) == ("ST", "moderate (2+)", "A")
    (absent,) = by_code["738-5^macrocytes^LN"]
    assert (absent[5], absent[8]) == ("not seen", "")
    figure, words = by_code["schistocyte-count^schistocytes counted^L"]
    assert figure[2:9] == ["NM", figure[3], "", "1.40", "%^%^UCUM", "0.77-2.34", "A"]
    assert words[5].startswith("14 of 1,000 red cells = 1.40 %")
    (text,) = by_code["6742-1^comment^LN"]
    assert (text[2], text[5]) == ("TX", "Two \\F\\ populations\\.br\\#strong[no]")


@pytest.mark.parametrize(
    ("status", "observed", "lines"),
    [
        (ReportStatus.AMENDED, "amended", "C"),
        (ReportStatus.CORRECTED, "corrected", "C"),
        (ReportStatus.APPENDED, "amended", "F"),
    ],
)
def test_findings_of_a_later_version_carry_its_status(status: ReportStatus, observed: str, lines: str) -> None:
    record = _record(version=2, status=status, amendment=Amendment(of_version=1, reason="Seen again."))
    assert {one["status"] for one in _observations(record).values()} == {observed}
    message = oru_message(record, pdf=b"%PDF-x").decode()
    assert {line.split("|")[11] for line in message.split("\r") if line.startswith("OBX")} == {lines}
    assert "Replaces version 1: Seen again." in message


@pytest.mark.parametrize("findings", [None, FOUND])
def test_page_is_set_with_and_without_findings(findings: Findings | None) -> None:
    pdf, _ = typeset_report(
        _record(findings=findings),
        context=ClinicalContext(patient_pseudonym="ab" * 16),
        quality=Quality(white_cells=0, focus=1.0, brightness=200.0, ood_fraction=0.0),
        priority=Priority.STAT,
        hospital_name="Hospital A",
        received_at=datetime.now(UTC),
        record_sha256="0" * 64,
        cell_numbers={},
        read_image=lambda _name: (b"", ""),
    )
    assert pdf.startswith(b"%PDF-")
