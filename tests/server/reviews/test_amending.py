"""Amending a signed report: versions follow each other, findings and asking for glass with them."""

import pytest

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases.schemas import WorklistFilter
from server.cases.worklist import worklist
from server.insights import service as insights
from server.models import Case, Report
from server.reports import service as reports
from server.reports.tasks import TASKS
from server.reviews import amending, findings, glass, opinions, second_opinions, service
from server.reviews.schemas import GlassInput
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError, ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import Acknowledgement, GlassReason, ReportStatus, SignedRecord
from shared.reporting.bundle import HL7, open_bundle
from tests.factories import PASSWORD
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward
from tests.server.reviews.opinions import asked


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader, one finding entered."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    _enter(ward, "grade.spherocytes", 2)
    return ward


def _enter(ward: Ward, item: str, value: int) -> None:
    with ward.centre.runtime.database.session() as session:
        findings.record(
            session, ward.reader, ward.case_id, item=item, value=value, idempotency_key=f"{item}={value}",
            few=frozenset(),
        )  # fmt: skip


def _sign(ward: Ward) -> str:
    with ward.centre.runtime.database.session() as session:
        look_through(session, ward.reader, ward.case_id)
        signing = sign_input(session, ward.reader, ward.case_id, impression="Spherocytes.")
        return service.sign(session, ward.reader, ward.centre.runtime, ward.case_id, signing)


def _ask(ward: Ward) -> str:
    with ward.centre.runtime.database.session() as session:
        version = cases.case_view(session, ward.reader, ward.case_id).version
        asked = GlassInput(password=PASSWORD, reason=GlassReason.STAIN, case_version=version)
        return glass.ask(session, ward.reader, ward.centre.runtime, ward.case_id, asked)


def _amend(ward: Ward, kind: ReportStatus = ReportStatus.AMENDED, reason: str = "Seen again.") -> None:
    with ward.centre.runtime.database.session() as session:
        amending.begin(session, ward.reader, ward.case_id, kind=kind, reason=reason)


def _record(ward: Ward, report_id: str) -> SignedRecord:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return SignedRecord.model_validate(session.get_one(Report, report_id).record)


def _state(ward: Ward) -> CaseState:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return cases.case_view(session, ward.reader, ward.case_id).state


def _bring_home(ward: Ward, report_id: str) -> None:
    with ward.centre.runtime.database.session() as session:
        (notice,) = [one for one in reports.waiting(session, hospital_id="a") if one.report_id == report_id]
        said = Acknowledgement(version=notice.version, sha256=notice.sha256, labels_joined=0)
        reports.acknowledge(
            session, hospital_id="a", node_id=ward.node.node_id, report_id=report_id, acknowledgement=said
        )


def test_amendment_begins_where_the_signature_was_and_makes_a_new_version(claimed: Ward) -> None:
    first = _sign(claimed)
    _amend(claimed)
    with claimed.centre.runtime.database.session(read_only=True) as session:
        view = cases.case_view(session, claimed.reader, claimed.case_id)
        assert (view.state, view.claimed_by_id) == (CaseState.IN_REVIEW, claimed.reader.user_id)
        assert view.amending is not None
        assert findings.view(session, claimed.reader, claimed.case_id).items == {"grade.spherocytes": 2}
        assert service.impression(session, claimed.reader, claimed.case_id) == "Spherocytes."
    _enter(claimed, "grade.spherocytes", 3)
    with claimed.centre.runtime.database.session(read_only=True) as session:
        assert service.impression(session, claimed.reader, claimed.case_id) == "Spherocytes."
    second = _sign(claimed)
    before, after = _record(claimed, first), _record(claimed, second)
    assert before.findings is not None
    assert after.findings is not None
    assert (list(before.findings.grades.values()), list(after.findings.grades.values())) == ([2], [3])
    assert (before.version, before.status, before.amendment) == (1, ReportStatus.FINAL, None)
    assert (after.version, after.status) == (2, ReportStatus.AMENDED)
    assert after.amendment is not None
    assert (after.amendment.of_version, after.amendment.reason) == (1, "Seen again.")
    with claimed.centre.runtime.database.session(read_only=True) as session:
        assert cases.case_view(session, claimed.reader, claimed.case_id).amending is None
        assert [one.version for one in reports.versions(session, claimed.reader, claimed.case_id)] == [2, 1]


def test_signed_report_is_hidden_from_a_second_reader_until_their_opinion_is_saved(claimed: Ward) -> None:
    report_id, who = _sign(claimed), claimed.second_reader
    TASKS["reports.render"](claimed.centre.runtime, {"report_id": report_id})
    _amend(claimed)
    with claimed.centre.runtime.database.session() as session:
        second_opinions.ask(session, claimed.reader, claimed.case_id, of=who.user_id, question="", hides_ai=False)
        assert reports.list_reports(session, who) == reports.versions(session, who, claimed.case_id) == []
        assert reports.latest_of(session, who, [claimed.case_id]) == {}
        assert insights.insights(session, who, days=7).ai.overall is None
        with pytest.raises(NotFoundError):
            reports.view(session, who, report_id)
        with pytest.raises(NotFoundError):
            reports.pdf(session, claimed.centre.runtime, who, report_id)
        for other in (claimed.reader, claimed.it):
            assert reports.view(session, other, report_id) in reports.list_reports(session, other)
        assert insights.insights(session, claimed.reader, days=7).signed == 1
        opinions.save(session, who, claimed.case_id, text="Spherocytes.", estimate={CellClass.LYMPHOCYTE: 20.0})
        assert [one.id for one in reports.list_reports(session, who)] == [report_id]
        assert reports.latest_of(session, who, [claimed.case_id]).keys() == {claimed.case_id}
        assert reports.pdf(session, claimed.centre.runtime, who, report_id).startswith(b"%PDF")


def test_amendment_is_not_left_while_a_second_opinion_is_open_nor_begun_by_its_reader(claimed: Ward) -> None:
    _sign(claimed)
    _amend(claimed)
    who, database = claimed.second_reader, claimed.centre.runtime.database
    with database.session() as session:
        second_opinions.ask(session, claimed.reader, claimed.case_id, of=who.user_id, question="", hides_ai=False)
        with pytest.raises(ConflictError, match="second opinion"):
            amending.leave(session, claimed.reader, claimed.case_id)
        # As an earlier version could leave it.
        session.get_one(Case, claimed.case_id).state = CaseState.SIGNED
    with database.session() as session, pytest.raises(ConflictError, match="another amends"):
        amending.begin(session, who, claimed.case_id, kind=ReportStatus.AMENDED, reason="Seen again.")


def test_earlier_version_that_comes_home_late_does_not_close_the_case(claimed: Ward) -> None:
    first = _sign(claimed)
    TASKS["reports.render"](claimed.centre.runtime, {"report_id": first})
    _amend(claimed, ReportStatus.CORRECTED)
    second = _sign(claimed)
    _bring_home(claimed, first)
    assert _state(claimed) is CaseState.SIGNED
    TASKS["reports.render"](claimed.centre.runtime, {"report_id": second})
    with claimed.centre.runtime.database.session() as session:
        sealed = reports.content(
            session, claimed.centre.runtime, hospital_id="a", node_id=claimed.node.node_id, report_id=second
        )
    _, files = open_bundle(
        sealed, report_id=second, version=2, key=claimed.node.envelope,
        centre=claimed.centre.runtime.vault.signing_public,
    )  # fmt: skip
    segments = [line.split("|") for line in files[HL7].decode().split("\r")]
    assert {line[11] for line in segments if line[0] == "OBX"} == {"C"}
    narrative = next(line for line in segments if line[0] == "OBX" and line[3].startswith("18314-5"))
    assert narrative[5] == "Spherocytes.\\.br\\Replaces version 1: Seen again."
    _bring_home(claimed, second)
    assert _state(claimed) is CaseState.CLOSED


def test_signed_report_can_be_replaced_by_asking_for_the_glass(claimed: Ward) -> None:
    _sign(claimed)
    _amend(claimed, reason="The fields are of another slide.")
    record = _record(claimed, _ask(claimed))
    assert (record.version, record.status, record.findings) == (2, ReportStatus.CANCELLED, None)
    assert record.not_gradable is not None
    assert record.amendment is not None
    assert record.amendment.reason == "The fields are of another slide."
    assert _state(claimed) is CaseState.REJECTED


def test_case_that_waits_for_glass_can_be_read_after_all(claimed: Ward) -> None:
    _ask(claimed)
    _amend(claimed, ReportStatus.CORRECTED, "Two fields can be read.")
    record = _record(claimed, _sign(claimed))
    assert (record.version, record.status, record.not_gradable) == (2, ReportStatus.CORRECTED, None)
    assert record.findings is not None
    with claimed.centre.runtime.database.session(read_only=True) as session:
        (row,) = worklist(session, claimed.reader, WorklistFilter(state="done")).rows
    assert row.state is CaseState.SIGNED


def test_amendment_that_changed_nothing_can_be_left(claimed: Ward) -> None:
    _sign(claimed)
    _amend(claimed)
    with claimed.centre.runtime.database.session() as session:
        amending.leave(session, claimed.reader, claimed.case_id)
    assert _state(claimed) is CaseState.SIGNED
    _amend(claimed)
    _enter(claimed, "grade.spherocytes", 3)
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        amending.leave(session, claimed.reader, claimed.case_id)


def test_worklist_says_that_a_case_is_amended_but_not_to_a_blind_second_reader(claimed: Ward) -> None:
    def amended(who: Principal) -> list[bool]:
        with claimed.centre.runtime.database.session(read_only=True) as session:
            return [row.amending for row in worklist(session, who, WorklistFilter()).rows]

    assert amended(claimed.reader) == [False]
    _sign(claimed)
    _amend(claimed)
    assert (amended(claimed.reader), amended(claimed.second_reader)) == ([True], [True])
    asked(claimed, of=claimed.second_reader)
    assert (amended(claimed.reader), amended(claimed.second_reader)) == ([True], [False])


def test_what_is_not_signed_or_not_said_is_not_amended(claimed: Ward) -> None:
    with pytest.raises(ConflictError):
        _amend(claimed)
    _sign(claimed)
    with pytest.raises(DataInvalidError):
        _amend(claimed, ReportStatus.FINAL)
    with pytest.raises(DataInvalidError):
        _amend(claimed, reason=" ")
    with claimed.centre.runtime.database.session() as session, pytest.raises(ForbiddenError):
        amending.begin(session, claimed.it, claimed.case_id, kind=ReportStatus.AMENDED, reason="x")
    assert _state(claimed) is CaseState.SIGNED
