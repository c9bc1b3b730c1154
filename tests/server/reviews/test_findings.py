"""Findings beside the differential: steps on record, once by their key, taken back, signed."""

import json

import pytest
from pydantic import JsonValue
from sqlmodel import select

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import AuditEntry, FindingChange, Report
from server.reviews import findings, phrases, service
from server.reviews.schemas import FindingsView
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConflictError, DataInvalidError, ForbiddenError, NotFoundError
from shared.contracts.findings import Term
from shared.contracts.report import SignedRecord
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward

FEW = frozenset({Term.SCHISTOCYTES})


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def _set(ward: Ward, item: str, value: JsonValue, key: str, *, who: Principal | None = None) -> FindingsView:
    with ward.centre.runtime.database.session() as session:
        return findings.record(
            session, who or ward.reader, ward.case_id, item=item, value=value, idempotency_key=key, few=FEW
        )


def _undo(ward: Ward, key: str, *, who: Principal | None = None) -> FindingsView:
    with ward.centre.runtime.database.session() as session:
        return findings.undo(session, who or ward.reader, ward.case_id, key)


def _steps(ward: Ward) -> list[FindingChange]:
    with ward.centre.runtime.database.session() as session:
        found = session.exec(select(FindingChange)).all()
        return sorted(found, key=lambda step: step.version)


def test_entry_stands_with_who_and_when_and_raises_the_version(claimed: Ward) -> None:
    first = _set(claimed, "grade.spherocytes", 2, "step-one")
    assert first.items == {"grade.spherocytes": 2}
    assert first.set_by["grade.spherocytes"].name == "Dr. A. Reader"
    assert [one.words for one in first.statements] == ["moderate (2+)"]
    second = _set(claimed, "schistocytes", {"counted": 1000, "schistocytes": 12}, "step-two")
    assert second.case_version == first.case_version + 1
    with claimed.centre.runtime.database.session(read_only=True) as session:
        assert cases.case_view(session, claimed.reader, claimed.case_id).version == second.case_version
        assert findings.view(session, claimed.reader, claimed.case_id) == second


def test_same_key_again_is_one_step(claimed: Ward) -> None:
    first = _set(claimed, "grade.spherocytes", 2, "step-one")
    assert _set(claimed, "grade.spherocytes", 3, "step-one") == first
    assert len(_steps(claimed)) == 1


def test_same_value_again_is_no_step(claimed: Ward) -> None:
    first = _set(claimed, "text.red_cells", "Dimorphic.", "step-one")
    assert _set(claimed, "text.red_cells", " Dimorphic.\x00 ", "step-two") == first
    assert len(_steps(claimed)) == 1


def test_cleared_entry_is_gone_but_on_record(claimed: Ward) -> None:
    _set(claimed, "malaria", {"presence": "not_seen"}, "step-one")
    assert _set(claimed, "malaria", None, "step-two").items == {}
    assert [(step.item, step.previous is None, step.value is None) for step in _steps(claimed)] == [
        ("malaria", True, False),
        ("malaria", False, True),
    ]


def test_undo_takes_back_step_by_step_whatever_the_item(claimed: Ward) -> None:
    _set(claimed, "grade.macrocytes", 2, "step-one")
    _set(claimed, "grade.macrocytes", 3, "step-two")
    _set(claimed, "platelets", {"adequacy": "decreased"}, "step-three")
    assert _undo(claimed, "undo-one").items == {"grade.macrocytes": 3}
    assert _undo(claimed, "undo-one").items == {"grade.macrocytes": 3}
    assert _undo(claimed, "undo-two").items == {"grade.macrocytes": 2}
    last = _undo(claimed, "undo-three")
    assert (last.items, last.can_undo) == ({}, False)
    with pytest.raises(ConflictError):
        _undo(claimed, "undo-four")
    assert len(_steps(claimed)) == 6


def test_undo_leaves_what_another_reader_changed_since(claimed: Ward) -> None:
    _set(claimed, "grade.macrocytes", 2, "step-one")
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.second_reader, claimed.case_id, take_over=True)
    with pytest.raises(ConflictError):
        _undo(claimed, "undo-none", who=claimed.second_reader)
    _set(claimed, "grade.macrocytes", 3, "step-two", who=claimed.second_reader)
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.reader, claimed.case_id, take_over=True)
    with pytest.raises(ConflictError, match="Another reader"):
        _undo(claimed, "undo-one")


@pytest.mark.parametrize(
    ("item", "value", "told"),
    [
        ("grade.nothing", 1, "no such entry"),
        ("colour", "red", "no such entry"),
        ("grade.spherocytes", 4, "Correct spherocytes: should be less than or equal to 3"),
        ("grade.spherocytes", 1, "Grade 1 is not used here for spherocytes: set 0, 2 or 3"),
        ("schistocytes", {"counted": 0, "schistocytes": 0}, "Correct cells counted: should be greater than"),
        ("schistocytes", {"counted": 5, "schistocytes": 6}, "more schistocytes than red cells"),
        ("text.platelets", "x" * 1001, "longer than 1,000 letters"),
        ("malaria", {"presence": "seen"}, "which species"),
    ],
)
def test_entry_that_does_not_fit_is_refused_and_changes_nothing(
    claimed: Ward, item: str, value: JsonValue, told: str
) -> None:
    with pytest.raises(DataInvalidError, match=told):
        _set(claimed, item, value, "step-one")
    assert _steps(claimed) == []


def test_grade_one_stands_where_the_site_uses_it_and_for_what_is_only_seen(claimed: Ward) -> None:
    assert _set(claimed, "grade.schistocytes", 1, "step-one").items == {"grade.schistocytes": 1}
    assert "grade.auer_rods" in _set(claimed, "grade.auer_rods", 1, "step-two").items


def test_findings_need_the_claim_the_role_and_the_tenant(claimed: Ward) -> None:
    with pytest.raises(ConflictError):
        _set(claimed, "grade.macrocytes", 2, "step-one", who=claimed.second_reader)
    with pytest.raises(ForbiddenError):
        _set(claimed, "grade.macrocytes", 2, "step-one", who=claimed.it)
    with claimed.centre.runtime.database.session() as session, pytest.raises(NotFoundError):
        findings.view(session, claimed.other_it, claimed.case_id)


def test_audit_tells_the_entry_but_not_what_a_comment_says(claimed: Ward) -> None:
    _set(claimed, "grade.macrocytes", 2, "step-one")
    _set(claimed, "text.red_cells", "Seen by Dr. Secret.", "step-two")
    with claimed.centre.runtime.database.session() as session:
        found = [entry.data for entry in session.exec(select(AuditEntry)) if entry.action == "findings.recorded"]
    assert sorted(found, key=str) == [
        {"item": "grade.macrocytes", "value": 2, "previous": None},
        {"item": "text.red_cells"},
    ]


def _sign(ward: Ward) -> SignedRecord:
    with ward.centre.runtime.database.session() as session:
        look_through(session, ward.reader, ward.case_id)
        signing = sign_input(session, ward.reader, ward.case_id, impression="Haemolysis.")
        report_id = service.sign(session, ward.reader, ward.centre.runtime, ward.case_id, signing)
    with ward.centre.runtime.database.session() as session:
        report = session.get_one(Report, report_id)
        record = SignedRecord.model_validate(report.record)
        ward.centre.runtime.vault.signing_public.verify(canonical_bytes(record), report.record_signature)
        assert json.loads(canonical_bytes(record)) == report.record
    return record


def test_findings_stand_in_the_signed_record(claimed: Ward) -> None:
    _set(claimed, "grade.schistocytes", 3, "step-one")
    _set(claimed, "schistocytes", {"counted": 1200, "schistocytes": 30}, "step-two")
    record = _sign(claimed)
    assert record.findings is not None
    assert record.findings.grades == {Term.SCHISTOCYTES: 3}
    assert record.findings.schistocytes is not None
    assert record.findings.schistocytes.counted == 1200
    with pytest.raises(ConflictError):
        _set(claimed, "grade.schistocytes", 0, "step-three")


def test_record_without_findings_reads_as_it_did_before_there_were_any(claimed: Ward) -> None:
    record = json.loads(canonical_bytes(_sign(claimed)))
    assert {"findings", "not_gradable"} & set(record) == set()


def test_phrases_are_a_readers_own(claimed: Ward) -> None:
    database = claimed.centre.runtime.database
    with database.session() as session:
        kept = phrases.keep(session, claimed.reader, "platelets", " Large forms. ")
        assert phrases.keep(session, claimed.reader, "platelets", "Large forms.").id == kept.id
    with database.session() as session:
        assert phrases.phrases(session, claimed.reader)[0] == kept
        assert kept not in phrases.phrases(session, claimed.second_reader)
        with pytest.raises(NotFoundError):
            phrases.remove(session, claimed.second_reader, kept.id or "")
        phrases.remove(session, claimed.reader, kept.id or "")
    with database.session() as session:
        assert all(phrase.id is None for phrase in phrases.phrases(session, claimed.reader))
        with pytest.raises(DataInvalidError):
            phrases.keep(session, claimed.reader, "nowhere", "x")
        with pytest.raises(DataInvalidError):
            phrases.keep(session, claimed.reader, "platelets", " ")


def test_grade_that_is_not_used_is_refused_however_it_is_written(claimed: Ward) -> None:
    values: list[JsonValue] = [1, "1", 1.0]
    for number, value in enumerate(values):
        with pytest.raises(DataInvalidError, match="Grade 1 is not used"):
            _set(claimed, "grade.spherocytes", value, f"few-{number}")
    assert _set(claimed, "grade.schistocytes", "1", "few-used").items == {"grade.schistocytes": 1}


def test_who_has_entered_nothing_has_nothing_to_take_back(claimed: Ward) -> None:
    assert _set(claimed, "grade.spherocytes", 2, "step-one").can_undo
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.second_reader, claimed.case_id, take_over=True)
        assert not findings.view(session, claimed.second_reader, claimed.case_id).can_undo
        assert findings.view(session, claimed.reader, claimed.case_id).can_undo
