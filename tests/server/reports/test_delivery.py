"""From the signed record to the acknowledged report: rendering, sealing, delivery, tenancy."""

import base64
import io
import json

import pytest
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import serialization
from fhir.resources.R4B.bundle import Bundle
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.diff_analysis import ModificationLevel
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko.sign.validation.status import PdfSignatureStatus
from pyhanko_certvalidator import ValidationContext

from server.cases import service as cases
from server.reports import service
from server.reports.tasks import TASKS
from server.reviews import service as reviews
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError, ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import Acknowledgement, ReportBundle
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.signing import SigningKey
from shared.reporting.bundle import FHIR, HL7, PDF, open_bundle
from shared.reporting.identify import identify_fhir, identify_hl7, identify_pdf
from shared.reporting.identity import Identity
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward

WHO = Identity.model_validate(
    {
        "name": "Łęcka-Müller, Ωmega Анна",
        "patient_id": "MRN-0042|7",
        "birth_date": "1961-04-03",
        "sex": "female",
        "x": 1,
    }
)


@pytest.fixture
def signed(ward: Ward) -> tuple[Ward, str]:
    """Return the ward with its case signed, one label corrected, and the report rendered."""
    database = ward.centre.runtime.database
    with database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
        reviews.reclassify(
            session,
            ward.reader,
            ward.case_id,
            cell_ids=["c1", "c2"],
            label=CellClass.BAND_NEUTROPHIL,
            idempotency_key="k",
        )
        look_through(session, ward.reader, ward.case_id)
        signing = sign_input(session, ward.reader, ward.case_id, impression="Left shift | “#strong[no]” \\ ^\nRepeat.")
        report_id = reviews.sign(session, ward.reader, ward.centre.runtime, ward.case_id, signing)
    TASKS["reports.render"](ward.centre.runtime, {"report_id": report_id})
    return ward, report_id


def _fetch(ward: Ward, report_id: str) -> bytes:
    with ward.centre.runtime.database.session() as session:
        return service.content(
            session, ward.centre.runtime, hospital_id="a", node_id=ward.node.node_id, report_id=report_id
        )


def _open(ward: Ward, report_id: str) -> tuple[ReportBundle, dict[str, bytes]]:
    return open_bundle(
        _fetch(ward, report_id),
        report_id=report_id,
        version=1,
        key=ward.node.envelope,
        centre=ward.centre.runtime.vault.signing_public,
    )


def _validate(ward: Ward, pdf: bytes) -> PdfSignatureStatus:
    der = ward.centre.runtime.vault.document_key().cert.public_bytes(serialization.Encoding.DER)
    context = ValidationContext(trust_roots=[asn1_x509.Certificate.load(der)])
    signature = PdfFileReader(io.BytesIO(pdf)).embedded_signatures[0]
    return validate_pdf_signature(signature, context)


def test_delivered_bundle_opens_verifies_and_holds_all_renderings(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    bundle, files = _open(ward, report_id)
    assert set(files) == {PDF, FHIR, HL7}
    assert files[PDF].startswith(b"%PDF-")
    assert [(label.cell_id, label.label) for label in bundle.feedback] == [
        ("c1", CellClass.BAND_NEUTROPHIL),
        ("c2", CellClass.BAND_NEUTROPHIL),
    ]
    status = _validate(ward, files[PDF])
    assert (status.bottom_line, status.modification_level) == (True, ModificationLevel.NONE)


def test_rendering_again_leaves_the_report_as_it_is(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    before = _fetch(ward, report_id)
    TASKS["reports.render"](ward.centre.runtime, {"report_id": report_id})
    assert _fetch(ward, report_id) == before


def test_identity_fills_the_fields_and_keeps_the_signature_valid(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    pdf = _open(ward, report_id)[1][PDF]
    identified = identify_pdf(pdf, WHO)
    assert identified.startswith(pdf)
    status = _validate(ward, identified)
    assert (status.bottom_line, status.modification_level) == (True, ModificationLevel.FORM_FILLING)
    form = PdfFileReader(io.BytesIO(identified)).root["/AcroForm"]
    fields = [field.get_object() for field in form["/Fields"]]
    values = {str(field["/T"]): str(field.get("/V", "")) for field in fields if field["/FT"] == "/Tx"}
    assert "Name: Łęcka-Müller, Ωmega Анна" in values["patient"]
    assert all("MRN-0042|7" in value for value in values.values())
    with pytest.raises(DataInvalidError):
        identify_pdf(identified, WHO)


def test_changed_text_under_an_identity_breaks_the_signature(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    pdf = bytearray(_open(ward, report_id)[1][PDF])
    pdf[2000] ^= 1
    assert not _validate(ward, bytes(pdf)).bottom_line


def test_fhir_is_valid_before_and_after_identity(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    files = _open(ward, report_id)[1]
    Bundle.model_validate_json(files[FHIR])
    kinds = [entry["resource"]["resourceType"] for entry in json.loads(files[FHIR])["entry"]]
    assert (kinds[0], kinds[-1], "Patient" in kinds) == ("DiagnosticReport", "Practitioner", False)
    named = json.loads(identify_fhir(files[FHIR], WHO, pdf=b"%PDF-x"))
    Bundle.model_validate(named)
    resources = [entry["resource"] for entry in named["entry"]]
    patient = named["entry"][-1]
    assert patient["resource"]["birthDate"] == "1961-04-03"
    pointed = [
        one["subject"]["reference"]
        for one in resources
        if one["resourceType"] in {"Observation", "Media", "DiagnosticReport"}
    ]
    assert set(pointed) == {patient["fullUrl"]}
    assert base64.b64decode(resources[0]["presentedForm"][0]["data"]) == b"%PDF-x"
    codes = {
        one["code"]["coding"][0]["code"]
        for one in resources
        if one["resourceType"] == "Observation" and "coding" in one["code"]
    }
    assert {"26508-2", "26511-6", "19048-8"} <= codes


@pytest.mark.filterwarnings("ignore::DeprecationWarning:hl7apy")
def test_hl7_parses_before_and_after_identity(signed: tuple[Ward, str]) -> None:
    from hl7apy.parser import parse_message  # its import is slow

    ward, report_id = signed
    files = _open(ward, report_id)[1]
    message = parse_message(files[HL7].decode(), find_groups=True)
    assert message.msh.msh_9.value == "ORU^R01^ORU_R01"
    named = identify_hl7(files[HL7], WHO, pdf=b"%PDF-x").decode()
    after = parse_message(named, find_groups=True)
    pid = after.oru_r01_patient_result.oru_r01_patient.pid
    assert pid.pid_5.value == "Łęcka-Müller^Ωmega^Анна"
    assert (pid.pid_7.value, pid.pid_8.value) == ("19610403", "F")
    assert pid.pid_3.value == "MRN-0042\\F\\7^^^HOSPITAL^MR"
    segments = [line.split("|") for line in named.split("\r") if line.startswith("OBX")]
    assert {line[11] for line in segments} == {"F"}
    assert base64.b64decode(segments[-1][5].split("^")[-1]) == b"%PDF-x"
    narrative = next(line for line in segments if line[3].startswith("18314-5"))
    assert narrative[5] == "Left shift \\F\\ “#strong[no]” \\E\\ \\S\\\\.br\\Repeat."


def test_bundle_opens_for_its_node_only(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    sealed, vault = _fetch(ward, report_id), ward.centre.runtime.vault
    with pytest.raises(DataInvalidError):
        open_bundle(
            sealed, report_id=report_id, version=1, key=EnvelopePrivateKey.generate(), centre=vault.signing_public
        )
    with pytest.raises(DataInvalidError):
        open_bundle(sealed, report_id="other", version=1, key=ward.node.envelope, centre=vault.signing_public)


def test_bundle_not_signed_by_the_centre_is_refused(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    with pytest.raises(Exception, match="signature"):
        open_bundle(
            _fetch(ward, report_id),
            report_id=report_id,
            version=1,
            key=ward.node.envelope,
            centre=SigningKey.generate().public,
        )


def test_acknowledgement_closes_the_case_once(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    database = ward.centre.runtime.database
    with database.session() as session:
        notice = service.waiting(session, hospital_id="a")[0]
    sealed = _fetch(ward, report_id)
    assert (notice.report_id, notice.size) == (report_id, len(sealed))
    with database.session() as session:
        assert cases.case_view(session, ward.reader, ward.case_id).state is CaseState.DELIVERED
    said = Acknowledgement(version=1, sha256=notice.sha256, labels_joined=2)
    for _ in range(2):
        with database.session() as session:
            service.acknowledge(
                session, hospital_id="a", node_id=ward.node.node_id, report_id=report_id, acknowledgement=said
            )
    with database.session() as session:
        assert cases.case_view(session, ward.reader, ward.case_id).state is CaseState.CLOSED
        view = service.view(session, ward.reader, report_id)
        assert service.waiting(session, hospital_id="a") == []
    assert (view.labels_joined, view.feedback_count, view.pages) == (2, 2, view.pages)
    assert view.acknowledged_at is not None


def test_acknowledgement_of_another_content_is_refused(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    said = Acknowledgement(version=1, sha256="0" * 64, labels_joined=0)
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        service.acknowledge(session, hospital_id="a", node_id="n", report_id=report_id, acknowledgement=said)


def test_report_of_another_hospital_is_not_found(signed: tuple[Ward, str]) -> None:
    ward, report_id = signed
    runtime = ward.centre.runtime
    said = Acknowledgement(version=1, sha256="0" * 64, labels_joined=0)
    with runtime.database.session() as session:
        assert service.waiting(session, hospital_id="b") == []
        assert service.list_reports(session, ward.other_it) == []
        assert [view.id for view in service.list_reports(session, ward.it)] == [report_id]
        with pytest.raises(NotFoundError):
            service.content(session, runtime, hospital_id="b", node_id="n", report_id=report_id)
        with pytest.raises(NotFoundError):
            service.acknowledge(session, hospital_id="b", node_id="n", report_id=report_id, acknowledgement=said)
        with pytest.raises(NotFoundError):
            service.view(session, ward.other_it, report_id)
        with pytest.raises(NotFoundError):
            service.pdf(session, runtime, ward.other_it, report_id)
        with pytest.raises(ForbiddenError):
            service.list_reports(session, ward.coordinator)
        assert service.pdf(session, runtime, ward.it, report_id).startswith(b"%PDF-")
