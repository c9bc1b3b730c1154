"""Signed cells to lay beside another: the patient's own at once, other hospitals' only where these agree."""

import pytest

from server.accounts.roles import Role
from server.cases import comparing
from server.cases import service as cases
from server.cases.ingest import ingest
from server.cases.schemas import Comparison
from server.reviews import service as reviews
from shared.contracts.errors import ForbiddenError
from shared.contracts.ontology import CellClass
from tests.factories import NodeIdentity, centre_key, make_context, pack
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward

MONOCYTE = CellClass.MONOCYTE


def _send(ward: Ward, node: NodeIdentity, pseudonym: str) -> str:
    parcel = pack(node, centre_key(ward.centre), context=make_context(pseudonym))
    parcel.upload(ward.centre.store)
    ingest(ward.centre.runtime, hospital_id=node.hospital_id, case_id=parcel.case_id)
    return parcel.case_id


def _sign(ward: Ward, case_id: str) -> None:
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, case_id)
        reviews.reclassify(
            session, ward.reader, case_id, cell_ids=["c1"], label=MONOCYTE, idempotency_key=f"k-{case_id}"
        )
        look_through(session, ward.reader, case_id)
        signing = sign_input(session, ward.reader, case_id, impression="Read.")
        reviews.sign(session, ward.reader, ward.centre.runtime, case_id, signing)


def _compare(ward: Ward, case_id: str) -> Comparison:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return comparing.comparison(session, ward.reader, case_id, MONOCYTE)


def test_earlier_cells_are_this_patients_of_signed_cases_only(ward: Ward) -> None:
    signed, unsigned, other = (_send(ward, ward.node, patient) for patient in ("ab" * 16, "ab" * 16, "cd" * 16))
    _sign(ward, signed)
    _sign(ward, other)
    found = _compare(ward, ward.case_id)
    assert {cell.case_id for cell in found.earlier} == {signed}
    assert unsigned not in {cell.case_id for cell in found.earlier}
    assert {(cell.cell_id, cell.set_by) for cell in found.earlier} == {
        ("c1", "Dr. A. Reader"),
        ("c18", None),
        ("c19", None),
    }
    assert found.references == []


def test_another_hospitals_patient_of_the_same_pseudonym_is_another_patient(ward: Ward) -> None:
    _sign(ward, _send(ward, ward.other_node, "ab" * 16))
    assert _compare(ward, ward.case_id) == Comparison(earlier=[], references=[])


def test_references_come_once_the_hospital_agrees_and_go_when_it_does_not(ward: Ward) -> None:
    for pseudonym in ("cd" * 16, "ef" * 16):
        _sign(ward, _send(ward, ward.other_node, pseudonym))
    assert _compare(ward, ward.case_id).references == []
    with ward.centre.runtime.database.session() as session:
        comparing.share_references(session, ward.other_it, "b", shares=True)
    found = _compare(ward, ward.case_id).references
    assert len(found) == comparing.MOST_OF_A_HOSPITAL
    assert [cell.set_by for cell in found[:2]] == ["Dr. A. Reader"] * 2
    with ward.centre.runtime.database.session() as session:
        comparing.share_references(session, ward.other_it, "b", shares=False)
        assert not comparing.shares_references(session, "b")
    assert _compare(ward, ward.case_id).references == []


def test_sharing_is_the_hospitals_own_or_an_administrators_decision(ward: Ward) -> None:
    admin = ward.centre.add_person("admin", Role.ADMIN)
    with ward.centre.runtime.database.session() as session:
        for other in (ward.it, ward.reader, ward.coordinator):
            with pytest.raises(ForbiddenError):
                comparing.share_references(session, other, "b", shares=True)
        comparing.share_references(session, admin, "b", shares=True)
        assert comparing.shares_references(session, "b")
