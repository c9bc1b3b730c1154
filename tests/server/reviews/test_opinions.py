"""First impressions without the AI: what is hidden, what is kept, and what is shown afterwards."""

from collections.abc import Callable

import pytest
from sqlmodel import col, select

from server.cases import service as cases
from server.cases.schemas import CaseView, WorklistFilter
from server.cases.worklist import worklist
from server.models import AuditEntry, Case, CaseCell, Opinion, OpinionKind, OpinionLabel
from server.reviews import geometry, looking, opinions, service, undoing
from server.reviews.schemas import NewBox
from shared.contracts.case import CaseState
from shared.contracts.errors import ConflictError, DataInvalidError, ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass
from tests.reading import look_through
from tests.server.conftest import Ward
from tests.server.reviews.opinions import classify, drawn, save

MO, BL, LY, UN = CellClass.MONOCYTE, CellClass.BLAST, CellClass.LYMPHOCYTE, CellClass.UNIDENTIFIED


@pytest.fixture
def blind(ward: Ward) -> Ward:
    return drawn(ward)


def _view(ward: Ward) -> CaseView:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return cases.case_view(session, ward.reader, ward.case_id)


def test_a_drawn_case_tells_nothing_of_the_ai(blind: Ward) -> None:
    view = _view(blind)
    assert (view.flags, view.ai_differential, view.differential, view.model_version) == ([], {}, {}, "")
    assert (view.quality.white_cells, view.quality.ood_fraction, view.untrained_classes) == (0, 0.0, [])
    told = {
        (cell.ai_class, cell.ai_probability, tuple(cell.prediction_set), cell.ood_score, cell.margin, cell.provisional)
        for cell in view.cells
    }
    assert told == {(UN, 0.0, (), 0.0, None, False)}
    assert {(cell.current_class, cell.doubtful, cell.changed_by) for cell in view.cells} == {(UN, True, None)}
    places = [(cell.field, cell.box[1], cell.box[0]) for cell in view.cells]
    assert places == sorted(places, key=lambda place: (place[0] or 0, *place[1:]))
    assert view.blind is not None
    assert (view.blind.kind, view.blind.hides_ai, view.blind.mine) == (OpinionKind.FIRST, True, True)


def test_the_worklist_hides_flags_and_doubts_of_a_drawn_case(blind: Ward) -> None:
    with blind.centre.runtime.database.session(read_only=True) as session:
        whole = worklist(session, blind.reader, WorklistFilter())
        by_flag = worklist(session, blind.reader, WorklistFilter(flag="immature.granulocytes"))
        by_words = worklist(session, blind.reader, WorklistFilter(search="immature"))
    (row,) = whole.rows
    assert (row.blind, row.flags, row.doubtful_count, whole.flags) == (True, [], 0, [])
    assert by_flag.rows == by_words.rows == []


@pytest.mark.parametrize("act", ["set", "accept", "undo", "redo", "seen", "readiness", "history", "draft", "add"])
def test_no_open_act_is_possible_before_the_impression(blind: Ward, act: str) -> None:
    who, case, key = blind.reader, blind.case_id, "k-before"
    place = NewBox(cell_id="r0123456789ab", box=(10, 200, 60, 238))
    with blind.centre.runtime.database.session() as session:
        acts: dict[str, Callable[[], object]] = {
            "set": lambda: service.reclassify(session, who, case, cell_ids=["c1"], label=BL, idempotency_key=key),
            "accept": lambda: service.accept(session, who, case, cell_ids=["c1"], idempotency_key=key),
            "undo": lambda: undoing.undo(session, who, case, key),
            "redo": lambda: undoing.redo(session, who, case, key),
            "seen": lambda: looking.saw(session, who, case, [MO]),
            "readiness": lambda: looking.readiness_of(session, who, case),
            "history": lambda: service.history(session, who, case),
            "draft": lambda: service.save_impression(session, who, case, "Draft."),
            "add": lambda: geometry.add(
                blind.centre.runtime, who, case, field=0, place=place, label=BL, idempotency_key=key
            ),
        }
        with pytest.raises(ConflictError):
            acts[act]()


def test_naming_cells_blind_leaves_the_case_as_it_is(blind: Ward) -> None:
    result = classify(blind, ["c1", "c2"], BL, "k1", who=blind.reader)
    assert {(cell.cell_id, cell.current_class, cell.ai_class) for cell in result.cells} == {
        ("c1", BL, UN),
        ("c2", BL, UN),
    }
    assert {cls: share.count for cls, share in result.differential.items()} == {BL: 2}
    assert classify(blind, ["c1", "c2"], BL, "k1", who=blind.reader) == result
    assert _view(blind).differential == result.differential
    with blind.centre.runtime.database.session() as session:
        cells = {cell.cell_id: cell for cell in session.exec(select(CaseCell))}
        assert (cells["c1"].current_class, cells["c1"].changed_by) == (CellClass.NEUTROPHIL, None)


def test_keys_that_differ_in_case_alone_are_two_requests(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "key-a", who=blind.reader)
    assert classify(blind, ["c2"], MO, "KEY-A", who=blind.reader).changes == 2


def test_class_that_a_cell_has_already_is_no_act_to_take_back(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "k1", who=blind.reader)
    classify(blind, ["c1"], BL, "k2", who=blind.reader)
    classify(blind, ["c1", "c2"], BL, "k3", who=blind.reader)
    with blind.centre.runtime.database.session() as session:
        seqs = [row.seq for row in session.exec(select(OpinionLabel).order_by(col(OpinionLabel.seq)))]
        (cell,) = opinions.undo(session, blind.reader, blind.case_id, "u1").cells
    assert seqs == [1, 2]
    assert (cell.cell_id, cell.current_class) == ("c2", UN)
    assert {cls: share.count for cls, share in _view(blind).differential.items()} == {BL: 1}


def test_blind_undo_and_redo_go_through_the_acts(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "k1", who=blind.reader)
    classify(blind, ["c1", "c2"], MO, "k2", who=blind.reader)
    with blind.centre.runtime.database.session() as session:
        result = opinions.undo(session, blind.reader, blind.case_id, "u1")
        assert opinions.undo(session, blind.reader, blind.case_id, "u1") == result
    assert {(cell.cell_id, cell.current_class) for cell in result.cells} == {("c1", BL), ("c2", UN)}
    with blind.centre.runtime.database.session() as session:
        opinions.redo(session, blind.reader, blind.case_id, "r1")
    assert {cls: share.count for cls, share in _view(blind).differential.items()} == {MO: 2}
    with blind.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        opinions.redo(session, blind.reader, blind.case_id, "r2")


def test_saving_shows_the_ai_and_asks_for_a_second_look_where_they_differ(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "k1", who=blind.reader)
    classify(blind, ["c2"], CellClass.NEUTROPHIL, "k2", who=blind.reader)
    save(blind, who=blind.reader, text="A blast?")
    view = _view(blind)
    cells = {cell.cell_id: cell for cell in view.cells}
    assert (view.blind, view.state, view.flags != []) == (None, CaseState.IN_REVIEW, True)
    assert (cells["c1"].ai_class, cells["c1"].current_class) == (CellClass.NEUTROPHIL, CellClass.NEUTROPHIL)
    assert (cells["c1"].doubtful, cells["c2"].doubtful) == (True, False)
    with blind.centre.runtime.database.session() as session:
        assert 1 in looking.readiness_of(session, blind.reader, blind.case_id).doubtful
        assert service.impression(session, blind.reader, blind.case_id) == "A blast?"
        look_through(session, blind.reader, blind.case_id)
        assert looking.readiness_of(session, blind.reader, blind.case_id).doubtful == []


def test_what_was_thought_blind_never_changes(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "k1", who=blind.reader)
    save(blind, who=blind.reader)
    for act in (
        lambda: classify(blind, ["c2"], BL, "k2", who=blind.reader),
        lambda: save(blind, who=blind.reader, text="Otherwise."),
    ):
        with pytest.raises(ConflictError):
            act()
    with blind.centre.runtime.database.session() as session:
        row = session.exec(select(Opinion)).one()
        entry = session.exec(select(AuditEntry).where(AuditEntry.action == "opinion.first_saved")).one()
        assert (row.labels, row.text, row.compared_with["c1"]) == ({"c1": "blast"}, "Left shift.", "neutrophil")
        assert entry.data["labels"] == {"c1": "blast"}
        assert "Left shift" not in str(entry.data)


def test_an_impression_needs_words_and_a_reading(blind: Ward) -> None:
    with blind.centre.runtime.database.session() as session:
        for text, estimate in (("", {MO: 5.0}), ("Words alone.", {}), ("Too much.", {MO: 60.0, BL: 60.0})):
            with pytest.raises(DataInvalidError):
                opinions.save(session, blind.reader, blind.case_id, text=text, estimate=estimate)
        opinions.save(session, blind.reader, blind.case_id, text="By eye.", estimate={MO: 5.0})


def test_only_the_holder_reads_blind(blind: Ward) -> None:
    with pytest.raises(ConflictError):
        classify(blind, ["c1"], BL, "k1", who=blind.second_reader)
    with pytest.raises(ForbiddenError):
        classify(blind, ["c1"], BL, "k1", who=blind.it)
    with pytest.raises(NotFoundError):
        classify(blind, ["nobody"], BL, "k1", who=blind.reader)
    with pytest.raises(DataInvalidError):
        classify(blind, ["c1"], None, "k1", who=blind.reader)


def test_a_drawn_case_handed_on_begins_anew_for_the_next_reader(blind: Ward) -> None:
    classify(blind, ["c1"], BL, "k1", who=blind.reader)
    with blind.centre.runtime.database.session() as session:
        cases.heartbeat_lease(session, blind.reader, blind.case_id)
        cases.release(session, blind.reader, blind.case_id)
        cases.claim(session, blind.second_reader, blind.case_id)
        theirs = cases.case_view(session, blind.second_reader, blind.case_id)
        assert session.get_one(Case, blind.case_id).blind_read_at is None
    assert {cell.current_class for cell in theirs.cells} == {UN}
