"""Cases are taken in once, whole, and only from whom they claim to be."""

import json

import pytest
from sqlmodel import select

from server.cases.bundle import BundleRefusedError, read_body
from server.cases.ingest import commit_notice, ingest, scan
from server.models import AuditEntry, Case, CaseCell, CaseField, OutboxEntry, Quarantine
from shared.contracts.case import CaseBody, CaseState, Priority
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.signing import SigningKey
from tests.factories import Centre, NodeIdentity, Parcel, centre_key, make_context, make_smear, pack


@pytest.fixture
def node(centre: Centre) -> NodeIdentity:
    """Return an approved node of hospital a."""
    return centre.add_node("a")


def _take_in(centre: Centre, parcel: Parcel) -> CaseState | None:
    parcel.upload(centre.store)
    return ingest(centre.runtime, hospital_id=parcel.hospital_id, case_id=parcel.case_id)


def _quarantine_codes(centre: Centre) -> list[str]:
    with centre.runtime.database.session(read_only=True) as session:
        return list(session.exec(select(Quarantine.code)))


def _case_count(centre: Centre) -> int:
    with centre.runtime.database.session(read_only=True) as session:
        return len(session.exec(select(Case)).all())


def test_ingest_makes_the_case_available_with_all_rows(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre), priority=Priority.STAT)
    assert _take_in(centre, parcel) is CaseState.AVAILABLE
    with centre.runtime.database.session(read_only=True) as session:
        case = session.get_one(Case, parcel.case_id)
        cells = session.exec(select(CaseCell)).all()
        fields = session.exec(select(CaseField)).all()
        actions = list(session.exec(select(AuditEntry.action).where(AuditEntry.subject == f"case:{parcel.case_id}")))
    assert (case.priority, case.cell_count, len(cells), len(fields)) == (Priority.STAT, 22, 22, 1)
    assert case.doubtful_count == 4
    assert (case.due_at - case.received_at).total_seconds() == 3600
    assert {cell.current_class for cell in cells} == {cell.ai_class for cell in cells}
    assert actions == ["case.received", "case.state", "case.state"]


def test_ingest_again_changes_nothing(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre))
    assert _take_in(centre, parcel) is CaseState.AVAILABLE
    assert _take_in(centre, parcel) is CaseState.AVAILABLE
    assert (_case_count(centre), _quarantine_codes(centre)) == (1, [])


def test_ingest_of_another_case_under_the_same_id_is_refused(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre))
    _take_in(centre, parcel)
    assert _take_in(centre, pack(node, centre_key(centre), case_id=parcel.case_id)) is None
    assert (_case_count(centre), _quarantine_codes(centre)) == (1, ["duplicate"])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("blobs/cell-c3.png", "blob_tampered"),
        ("blobs/body-json", "blob_tampered"),
        ("key.json", "key_tampered"),
        ("manifest.json", "manifest_invalid"),
    ],
)
def test_ingest_with_a_flipped_byte_goes_into_quarantine(
    centre: Centre, node: NodeIdentity, name: str, code: str
) -> None:
    parcel = pack(node, centre_key(centre))
    content = bytearray(parcel.objects[name])
    content[0 if name == "manifest.json" else -3] ^= 1
    parcel.objects[name] = bytes(content)
    assert _take_in(centre, parcel) is None
    assert (_case_count(centre), _quarantine_codes(centre)) == (0, [code])


@pytest.mark.parametrize("name", ["blobs/field-0.jpg", "key.json", "manifest.json"])
def test_ingest_with_a_missing_part_goes_into_quarantine(centre: Centre, node: NodeIdentity, name: str) -> None:
    parcel = pack(node, centre_key(centre))
    del parcel.objects[name]
    assert _take_in(centre, parcel) is None
    assert _quarantine_codes(centre) == ["incomplete"]


def test_ingest_with_a_changed_priority_fails_the_signature(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre))
    manifest = json.loads(parcel.objects["manifest.json"])
    manifest["manifest"]["priority"] = "stat"
    parcel.objects["manifest.json"] = json.dumps(manifest).encode()
    assert _take_in(centre, parcel) is None
    assert _quarantine_codes(centre) == ["signature_invalid"]


def test_ingest_signed_by_another_key_is_refused(centre: Centre, node: NodeIdentity) -> None:
    assert _take_in(centre, pack(node, centre_key(centre), signer=SigningKey.generate())) is None
    assert _quarantine_codes(centre) == ["signature_invalid"]


def test_ingest_sealed_to_another_centre_is_refused(centre: Centre, node: NodeIdentity) -> None:
    assert _take_in(centre, pack(node, EnvelopePrivateKey.generate().public)) is None
    assert _quarantine_codes(centre) == ["key_unusable"]


def test_ingest_of_a_case_moved_to_another_hospital_is_refused(centre: Centre, node: NodeIdentity) -> None:
    centre.add_node("b")
    parcel = pack(node, centre_key(centre))
    parcel.hospital_id = "b"
    assert _take_in(centre, parcel) is None
    assert _quarantine_codes(centre) == ["wrong_place"]


def test_ingest_from_another_hospitals_node_is_refused(centre: Centre, node: NodeIdentity) -> None:
    other = centre.add_node("b")
    forged = NodeIdentity("a", other.node_id, other.signing, other.envelope)
    assert _take_in(centre, pack(forged, centre_key(centre))) is None
    assert _quarantine_codes(centre) == ["unknown_node"]


def test_ingest_after_a_mended_upload_takes_the_case_in(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre))
    kept = parcel.objects.pop("key.json")
    assert _take_in(centre, parcel) is None
    parcel.objects["key.json"] = kept
    assert _take_in(centre, parcel) is CaseState.AVAILABLE


def test_scan_finds_a_case_without_notice_once(centre: Centre, node: NodeIdentity) -> None:
    pack(node, centre_key(centre)).upload(centre.store)
    assert (scan(centre.runtime), scan(centre.runtime)) == (1, 0)
    with centre.runtime.database.session(read_only=True) as session:
        assert [entry.kind for entry in session.exec(select(OutboxEntry))] == ["cases.ingest"]


def test_scan_leaves_known_and_quarantined_cases_alone(centre: Centre, node: NodeIdentity) -> None:
    _take_in(centre, pack(node, centre_key(centre)))
    _take_in(centre, pack(node, EnvelopePrivateKey.generate().public))
    noticed = pack(node, centre_key(centre))
    noticed.upload(centre.store)
    with centre.runtime.database.session() as session:
        commit_notice(session, hospital_id="a", case_id=noticed.case_id)
    assert scan(centre.runtime) == 0


@pytest.mark.parametrize("cell_id", ["1²2", "9" * 5000, "a/b", ""])
def test_ingest_of_a_cell_id_no_page_could_show_goes_into_quarantine(
    centre: Centre, node: NodeIdentity, cell_id: str
) -> None:
    smear = make_smear()
    odd = smear.cells[0].model_copy(update={"id": cell_id})
    parcel = pack(node, centre_key(centre), smear=smear.model_copy(update={"cells": (odd, *smear.cells[1:])}))
    assert _take_in(centre, parcel) is None
    assert (_case_count(centre), _quarantine_codes(centre)) == (0, ["inconsistent"])


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-1e999"])
def test_body_with_a_number_that_is_none_is_refused(number: bytes) -> None:
    plain = CaseBody(smear=make_smear(), context=make_context()).model_dump_json(by_alias=True).encode()
    assert read_body(plain).smear.cells[0].ood_score == 0.3
    with pytest.raises(BundleRefusedError):
        read_body(plain.replace(b'"ood_score":0.3', b'"ood_score":' + number, 1))


def test_ingest_reads_no_more_of_a_part_than_the_manifest_says(centre: Centre, node: NodeIdentity) -> None:
    parcel = pack(node, centre_key(centre))
    parcel.objects["blobs/cell-c3.png"] += b"x" * 1000
    assert _take_in(centre, parcel) is None
    assert _quarantine_codes(centre) == ["blob_tampered"]
