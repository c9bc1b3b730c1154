"""Not gradable, send glass: signed without a result, delivered like a report, out of the worklist."""

import json

import pytest
from sqlmodel import select

from server.cases import comparing
from server.cases import service as cases
from server.cases.schemas import WorklistFilter
from server.cases.worklist import worklist
from server.models import AuditEntry, Report
from server.reports import service as reports
from server.reports.tasks import TASKS
from server.reviews import glass, looking, opinions, second_opinions, service
from server.reviews.schemas import GlassInput, SignInput
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError, UnauthenticatedError
from shared.contracts.ontology import CellClass
from shared.contracts.report import Acknowledgement, GlassReason, ReportStatus, SignedRecord
from shared.reporting.bundle import FHIR, HL7, open_bundle
from tests.factories import PASSWORD
from tests.server.conftest import Ward


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def _ask(ward: Ward, **changes: object) -> str:
    with ward.centre.runtime.database.session() as session:
        version = cases.case_view(session, ward.reader, ward.case_id).version
        given = {"password": PASSWORD, "reason": GlassReason.OUT_OF_FOCUS, "case_version": version} | changes
        return glass.ask(session, ward.reader, ward.centre.runtime, ward.case_id, GlassInput.model_validate(given))


def test_glass_is_asked_for_by_a_signed_record_without_result(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        service.reclassify(
            session, claimed.reader, claimed.case_id, cell_ids=["c1"], label=CellClass.BLAST, idempotency_key="k1"
        )
    report_id = _ask(claimed, note="Only field 2 is sharp.")
    runtime = claimed.centre.runtime
    with runtime.database.session() as session:
        report = session.get_one(Report, report_id)
        view = cases.case_view(session, claimed.reader, claimed.case_id)
        actions = [entry.action for entry in session.exec(select(AuditEntry))]
    record = SignedRecord.model_validate(report.record)
    runtime.vault.signing_public.verify(canonical_bytes(record), report.record_signature)
    assert (record.status, record.differential, record.cells_counted) == (ReportStatus.CANCELLED, {}, 0)
    assert (record.key_cells, report.feedback) == ((), [])
    assert [flag.id for flag in record.flags] == ["too_few_cells"]
    assert record.not_gradable is not None
    assert record.not_gradable.words == "The images are out of focus. Only field 2 is sharp."
    assert record.signature.meaning == glass.MEANING
    assert (view.state, view.report_id) == (CaseState.REJECTED, report_id)
    assert "case.glass_asked" in actions


def test_glass_cannot_be_asked_for_while_a_second_opinion_is_open_or_not_on_the_page(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        of = claimed.second_reader.user_id
        opinion_id = second_opinions.ask(session, claimed.reader, claimed.case_id, of=of, question="", hides_ai=False)
    with pytest.raises(ConflictError, match="second opinion"):
        _ask(claimed)
    with claimed.centre.runtime.database.session() as session:
        opinions.save(
            session, claimed.second_reader, claimed.case_id, text="Blurred.", estimate={CellClass.LYMPHOCYTE: 20.0}
        )
    with pytest.raises(ConflictError, match="given since"):
        _ask(claimed)
    assert _ask(claimed, opinions=[opinion_id])


def test_glass_travels_home_and_the_worklist_shows_it_as_done(claimed: Ward) -> None:
    report_id, database = _ask(claimed), claimed.centre.runtime.database
    TASKS["reports.render"](claimed.centre.runtime, {"report_id": report_id})
    with database.session() as session:
        (notice,) = reports.waiting(session, hospital_id="a")
        sealed = reports.content(
            session, claimed.centre.runtime, hospital_id="a", node_id=claimed.node.node_id, report_id=report_id
        )
    bundle, files = open_bundle(
        sealed, report_id=report_id, version=1, key=claimed.node.envelope,
        centre=claimed.centre.runtime.vault.signing_public,
    )  # fmt: skip
    assert bundle.record.not_gradable is not None
    fhir = json.loads(files[FHIR])["entry"][0]["resource"]
    assert (fhir["status"], fhir["conclusion"]) == ("cancelled", bundle.record.impression)
    segments = [line.split("|") for line in files[HL7].decode().split("\r")]
    assert next(line for line in segments if line[0] == "OBR")[25] == "X"
    assert [line[3].split("^")[0] for line in segments if line[0] == "OBX"] == ["5909-7", "18314-5", "PDF"]
    with database.session() as session:
        said = Acknowledgement(version=1, sha256=notice.sha256, labels_joined=0)
        reports.acknowledge(
            session, hospital_id="a", node_id=claimed.node.node_id, report_id=report_id, acknowledgement=said
        )
    with database.session() as session:
        assert reports.waiting(session, hospital_id="a") == []
        done = worklist(session, claimed.reader, WorklistFilter(state="done"))
        assert [row.state for row in done.rows] == [CaseState.REJECTED]
        assert worklist(session, claimed.reader, WorklistFilter()).rows == []


def test_cells_of_a_smear_that_could_not_be_read_are_no_references(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        service.reclassify(
            session, claimed.reader, claimed.case_id, cell_ids=["c1"], label=CellClass.BLAST, idempotency_key="k1"
        )
    _ask(claimed)
    with claimed.centre.runtime.database.session() as session:
        found = comparing.comparison(session, claimed.reader, claimed.case_id, CellClass.BLAST)
    assert (found.earlier, found.references) == ([], [])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"password": "wrong"}, UnauthenticatedError),
        ({"case_version": 1}, ConflictError),
        ({"reason": GlassReason.OTHER}, DataInvalidError),
        ({"note": "x" * 501}, DataInvalidError),
    ],
)
def test_glass_that_is_not_signed_rightly_changes_nothing(
    claimed: Ward, changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _ask(claimed, **changes)
    with claimed.centre.runtime.database.session() as session:
        assert session.exec(select(Report)).all() == []
        assert cases.case_view(session, claimed.reader, claimed.case_id).state is CaseState.CLAIMED


def test_case_that_waits_for_glass_is_read_no_more(claimed: Ward) -> None:
    _ask(claimed)
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        cases.claim(session, claimed.second_reader, claimed.case_id)
    signing = SignInput(password=PASSWORD, impression="x", case_version=99)
    with claimed.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        service.sign(session, claimed.reader, claimed.centre.runtime, claimed.case_id, signing)


def test_glass_asked_for_again_under_its_key_is_answered_with_the_letter_that_there_is(claimed: Ward) -> None:
    with claimed.centre.runtime.database.session() as session:
        version = cases.case_view(session, claimed.reader, claimed.case_id).version
    sent = {"case_version": version, "idempotency_key": "g" * 8}
    report_id = _ask(claimed, **sent)
    assert _ask(claimed, **sent) == report_id
    with pytest.raises(ConflictError):
        _ask(claimed, **sent, reason=GlassReason.TOO_FEW_CELLS)
    with claimed.centre.runtime.database.session() as session:
        assert len(session.exec(select(Report)).all()) == 1
        assert [one.action for one in session.exec(select(AuditEntry))].count("case.glass_asked") == 1


def test_what_was_on_screen_before_glass_was_asked_for_may_be_told_after_it(claimed: Ward) -> None:
    _ask(claimed)
    with claimed.centre.runtime.database.session() as session:
        looking.saw(session, claimed.reader, claimed.case_id, [CellClass.NEUTROPHIL])
        assert looking.seen_by(session, claimed.reader, claimed.case_id) == []
