"""Changing classes, taking changes back, and signing out."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlmodel import select

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import AuditEntry, Case, LabelChange, OutboxEntry, Report, Review
from server.reviews import looking, service, steps, undoing
from server.reviews.schemas import ChangeResult
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import CaseState
from shared.contracts.errors import (
    ConflictError,
    DataInvalidError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
)
from shared.contracts.ontology import CellClass
from shared.contracts.report import SignedRecord
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward

IG = "c21"


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def _change(ward: Ward, cells: list[str], label: CellClass, key: str, *, who: Principal | None = None) -> ChangeResult:
    reader = who or ward.reader
    with ward.centre.runtime.database.session() as session:
        done = service.reclassify(session, reader, ward.case_id, cell_ids=cells, label=label, idempotency_key=key)
        return steps.changed(session, reader, ward.case_id, done)


def test_reclassify_changes_the_live_differential(claimed: Ward) -> None:
    result = _change(claimed, [IG, "c1"], CellClass.BLAST, "k1")
    assert result.differential[CellClass.BLAST].count == 2
    assert result.differential[CellClass.NEUTROPHIL].count == 11
    assert CellClass.IMMATURE_GRANULOCYTE not in result.differential
    assert [(cell.cell_id, cell.current_class, cell.changed_by) for cell in result.cells] == [
        ("c1", CellClass.BLAST, "Dr. A. Reader"),
        (IG, CellClass.BLAST, "Dr. A. Reader"),
    ]
    assert result.changes == 2
    with claimed.centre.runtime.database.session() as session:
        view = cases.case_view(session, claimed.reader, claimed.case_id)
    assert (view.state, view.version, view.differential) == (
        CaseState.IN_REVIEW,
        result.case_version,
        result.differential,
    )


def test_reclassify_to_the_same_class_confirms_the_cell(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session(read_only=True) as session:
        before = next(c for c in cases.case_view(session, claimed.reader, claimed.case_id).cells if c.doubtful)
    (cell,) = _change(claimed, [before.cell_id], before.current_class, "k1").cells
    assert (cell.doubtful, cell.current_class, cell.changed_by) == (False, before.current_class, "Dr. A. Reader")
    with claimed.centre.runtime.database.session() as session:
        done = undoing.undo(session, claimed.reader, claimed.case_id, "u1")
        (cell,) = steps.changed(session, claimed.reader, claimed.case_id, done).cells
    assert (cell.doubtful, cell.changed_by) == (True, None)


def test_reclassify_repeated_with_its_key_changes_nothing(claimed: Ward) -> None:
    first = _change(claimed, [IG], CellClass.BLAST, "k1")
    assert _change(claimed, [IG], CellClass.BLAST, "k1") == first
    with claimed.centre.runtime.database.session() as session:
        assert len(session.exec(select(LabelChange)).all()) == 1


def test_reclassify_to_a_class_outside_the_denominator_drops_the_cell(claimed: Ward) -> None:
    result = _change(claimed, [IG], CellClass.ARTEFACT, "k1")
    assert sum(share.count for share in result.differential.values()) == 20


def test_reclassify_with_a_foreign_cell_changes_nothing(claimed: Ward) -> None:
    with pytest.raises(NotFoundError):
        _change(claimed, [IG, "nobody"], CellClass.BLAST, "k1")
    with claimed.centre.runtime.database.session() as session:
        assert session.exec(select(LabelChange)).all() == []


def test_reclassify_needs_the_claim_and_the_role(claimed: Ward) -> None:
    with pytest.raises(ConflictError):
        _change(claimed, [IG], CellClass.BLAST, "k1", who=claimed.second_reader)
    with pytest.raises(ForbiddenError):
        _change(claimed, [IG], CellClass.BLAST, "k1", who=claimed.it)


def test_history_of_another_hospitals_case_is_not_found(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session, pytest.raises(NotFoundError):
        service.history(session, claimed.other_it, claimed.case_id)


def test_impression_is_kept_as_a_draft(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        service.save_impression(session, claimed.reader, claimed.case_id, "Left shift.\nRepeat.\x00")
    with claimed.centre.runtime.database.session() as session:
        assert service.impression(session, claimed.reader, claimed.case_id) == "Left shift.\nRepeat."


def test_impression_of_another_reader_who_has_not_signed_is_not_taken_over(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        service.save_impression(session, claimed.reader, claimed.case_id, "Left shift, I think.")
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.second_reader, claimed.case_id, take_over=True)
        assert service.impression(session, claimed.second_reader, claimed.case_id) == ""
        assert service.impression(session, claimed.reader, claimed.case_id) == "Left shift, I think."


def _sign(ward: Ward, *, looked: bool = True, dismissed: Mapping[str, str] | None = None, **changes: Any) -> str:
    if looked:
        with ward.centre.runtime.database.session() as session:
            look_through(session, ward.reader, ward.case_id)
    with ward.centre.runtime.database.session() as session:
        shown = sign_input(session, ward.reader, ward.case_id, impression="Left shift.", dismissed=dismissed or {})
        signing = shown.model_copy(update=changes)
        return service.sign(session, ward.reader, ward.centre.runtime, ward.case_id, signing)


def test_sign_makes_a_signed_record_feedback_and_a_task(claimed: Ward) -> None:
    _change(claimed, [IG], CellClass.BLAST, "k1")
    report_id = _sign(claimed, dismissed={"too_few_cells": "Gallery only."})
    runtime = claimed.centre.runtime
    with runtime.database.session() as session:
        report = session.get_one(Report, report_id)
        tasks = [(entry.kind, entry.payload) for entry in session.exec(select(OutboxEntry))]
        view = cases.case_view(session, claimed.reader, claimed.case_id)
        review = session.exec(select(Review)).one()
        states = [entry.data["to"] for entry in session.exec(select(AuditEntry)) if entry.action == "case.state"]
    record = SignedRecord.model_validate(report.record)
    runtime.vault.signing_public.verify(canonical_bytes(record), report.record_signature)
    assert record.differential == view.differential
    assert (record.cells_counted, record.impression, record.signature.reader_name) == (
        21,
        "Left shift.",
        "Dr. A. Reader",
    )
    assert record.dismissed_flags == {"too_few_cells": "Gallery only."}
    assert report.feedback == [
        {
            "case_id": claimed.case_id,
            "cell_id": IG,
            "label": "blast",
            "previous": "immature_granulocyte",
            "reader_role": "hematologist",
            "report_version": 1,
        }
    ]
    assert record.key_cells[0].model_dump()["changed_by_reader"] is False
    assert [cell.cell_id for cell in record.key_cells if cell.changed_by_reader] == [IG]
    assert tasks == [("reports.render", {"report_id": report_id})]
    assert (view.state, view.report_id, view.claimed_by) == (CaseState.SIGNED, report_id, None)
    assert review.signed_at is not None
    assert states[-3:] == ["in_review", "ready", "signed"]


def test_sign_with_a_wrong_password_changes_nothing(claimed: Ward) -> None:
    with pytest.raises(UnauthenticatedError):
        _sign(claimed, password="wrong")
    with claimed.centre.runtime.database.session() as session:
        assert session.exec(select(Report)).all() == []
        assert cases.case_view(session, claimed.reader, claimed.case_id).state is CaseState.IN_REVIEW


def test_sign_of_a_case_changed_meanwhile_is_refused(claimed: Ward) -> None:
    with pytest.raises(ConflictError, match="changed since"):
        _sign(claimed, case_version=1)


@pytest.mark.parametrize(
    "changes", [{"impression": "  "}, {"impression": "x" * 4001}, {"dismissed": {"too_few_cells": ""}}]
)
def test_sign_with_something_missing_is_refused(claimed: Ward, changes: dict[str, Any]) -> None:
    with pytest.raises(DataInvalidError):
        _sign(claimed, **changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda flags: flags[1:],
        lambda flags: [*flags, {**flags[0], "id": "blasts"}],
        lambda flags: flags[:0],
        lambda flags: [{**flags[0], "severity": "critical"}, *flags[1:]],
        lambda flags: [{**flags[0], "evidence": {**flags[0]["evidence"], "text": "9 of 12"}}, *flags[1:]],
    ],
)
def test_sign_of_other_flags_than_were_shown_is_refused_and_keeps_the_draft(
    claimed: Ward, change: Callable[[list[Any]], list[Any]]
) -> None:
    with claimed.centre.runtime.database.session() as session:
        look_through(session, claimed.reader, claimed.case_id)
        service.save_impression(session, claimed.reader, claimed.case_id, "Left shift.")
        shown = sign_input(session, claimed.reader, claimed.case_id, impression="Left shift.")
        assert {one.flag_id for one in shown.decisions} == {"immature.granulocytes", "too_few_cells"}
    with claimed.centre.runtime.database.session() as session:
        case = session.get_one(Case, claimed.case_id)
        # As further cells leave it; the version is the page's own, which an act after them has brought up to date.
        case.flags = change(case.flags)
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError, match="look at the flags"):
        service.sign(session, claimed.reader, claimed.centre.runtime, claimed.case_id, shown)
    with claimed.centre.runtime.database.session() as session:
        assert service.impression(session, claimed.reader, claimed.case_id) == "Left shift."
        assert session.exec(select(Report)).all() == []
    assert _sign(claimed)


def test_signed_case_cannot_be_changed_or_signed_again(claimed: Ward) -> None:
    _sign(claimed)
    with pytest.raises(ConflictError):
        _change(claimed, [IG], CellClass.BLAST, "k1")
    with pytest.raises(ConflictError):
        _sign(claimed)


def _made(ward: Ward) -> tuple[int, int, int]:
    """Return how many reports, signatures in the audit and renderings there are."""
    with ward.centre.runtime.database.session() as session:
        signed = [one for one in session.exec(select(AuditEntry)) if one.action == "case.signed"]
        rendering = [one for one in session.exec(select(OutboxEntry)) if one.kind == "reports.render"]
        return len(session.exec(select(Report)).all()), len(signed), len(rendering)


def test_signature_sent_again_under_its_key_is_answered_with_the_report_that_it_made(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        look_through(session, claimed.reader, claimed.case_id)
        version = cases.case_view(session, claimed.reader, claimed.case_id).version
    sent: dict[str, Any] = {"looked": False, "case_version": version, "idempotency_key": "s" * 8}
    report_id = _sign(claimed, **sent)
    assert _sign(claimed, **sent) == report_id
    assert _made(claimed) == (1, 1, 1)
    with pytest.raises(UnauthenticatedError):
        _sign(claimed, **sent, password="wrong")
    for other in ({"impression": "Nothing of note."}, {"case_version": version + 1}, {"idempotency_key": "t" * 8}):
        with pytest.raises(ConflictError, match="no longer be changed"):
            _sign(claimed, **{**sent, **other})
    with claimed.centre.runtime.database.session() as session:
        signing = sign_input(session, claimed.reader, claimed.case_id, impression="Left shift.")
    signing = signing.model_copy(update={"case_version": version, "idempotency_key": "s" * 8})
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        service.sign(session, claimed.second_reader, claimed.centre.runtime, claimed.case_id, signing)
    assert _made(claimed) == (1, 1, 1)


def test_accept_confirms_each_cell_with_its_own_class(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        done = service.accept(session, claimed.reader, claimed.case_id, cell_ids=["c5", "c15"], idempotency_key="k1")
        result = steps.changed(session, claimed.reader, claimed.case_id, done)
    assert {cell.cell_id: (cell.current_class, cell.doubtful) for cell in result.cells} == {
        "c5": (CellClass.NEUTROPHIL, False),
        "c15": (CellClass.LYMPHOCYTE, False),
    }
    with claimed.centre.runtime.database.session() as session:
        done = service.accept(session, claimed.reader, claimed.case_id, cell_ids=["c5", "c15"], idempotency_key="k1")
        again = steps.changed(session, claimed.reader, claimed.case_id, done)
    assert again == result


def test_sign_with_a_doubtful_cell_left_is_refused_by_its_number(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        cells = cases.case_view(session, claimed.reader, claimed.case_id).cells
        looking.saw(session, claimed.reader, claimed.case_id, {cell.current_class for cell in cells})
    _change(claimed, ["c5", "c10", "c15"], CellClass.MONOCYTE, "k1")
    with pytest.raises(ConflictError, match="Doubtful cell 20 is not reviewed"):
        _sign(claimed, looked=False)
    _change(claimed, ["c20"], CellClass.EOSINOPHIL, "k2")
    assert _sign(claimed, looked=False)


def test_sign_with_a_class_never_on_screen_is_refused_by_its_name(claimed: Ward) -> None:
    _change(claimed, ["c5", "c10", "c15", "c20"], CellClass.MONOCYTE, "k1")
    with claimed.centre.runtime.database.session() as session:
        seen = {CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE}
        left = looking.saw(session, claimed.reader, claimed.case_id, seen)
    assert (left.doubtful, left.unseen) == ([], [CellClass.IMMATURE_GRANULOCYTE, CellClass.ERYTHROBLAST])
    with pytest.raises(ConflictError, match="not on your screen yet: immature granulocyte, nucleated red cell"):
        _sign(claimed, looked=False)
    with claimed.centre.runtime.database.session() as session:
        looking.saw(session, claimed.reader, claimed.case_id, left.unseen)
        assert set(looking.seen_by(session, claimed.reader, claimed.case_id)) == {*seen, *left.unseen}
    assert _sign(claimed, looked=False)


def test_what_one_reader_saw_does_not_count_for_another(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        look_through(session, claimed.reader, claimed.case_id)
        cases.claim(session, claimed.second_reader, claimed.case_id, take_over=True)
        left = looking.readiness_of(session, claimed.second_reader, claimed.case_id)
    assert (left.doubtful, CellClass.NEUTROPHIL in left.unseen) == ([], True)
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        looking.saw(session, claimed.reader, claimed.case_id, [CellClass.NEUTROPHIL])
