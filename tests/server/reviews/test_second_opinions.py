"""Second opinions: blind to the first reader, laid beside theirs once given."""

import pytest
from sqlmodel import select

from server.cases import service as cases
from server.cases.schemas import CaseView, Sort, WorklistFilter
from server.cases.views import NO_FLAG
from server.cases.worklist import assign, lines_of, worklist
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.models import AuditEntry, Case, Opinion
from server.reviews import geometry, opinions, second_opinions, service
from server.reviews.schemas import NewBox
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.ontology import CellClass
from tests.reading import look_through
from tests.server.conftest import Ward
from tests.server.reviews.opinions import asked, classify, save, sent_later
from tests.server.reviews.test_service import _change, _sign

MO, BL, NE = CellClass.MONOCYTE, CellClass.BLAST, CellClass.NEUTROPHIL


def _view(ward: Ward) -> CaseView:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return cases.case_view(session, ward.second_reader, ward.case_id)


def test_the_second_reader_sees_the_ai_and_nothing_of_the_first(ward: Ward) -> None:
    before = {cell.cell_id: cell.current_class for cell in _view(ward).cells}
    asked(ward, of=ward.second_reader)
    _change(ward, ["c1", "c2"], BL, "k1")
    view = _view(ward)
    assert {cell.cell_id: cell.current_class for cell in view.cells} == before
    assert {cell.changed_by for cell in view.cells} == {None}
    assert (BL in view.differential, view.flags != []) == (False, True)
    assert view.blind is not None
    assert (view.blind.mine, view.blind.question, view.blind.asked_by) == (True, "Blasts?", "Dr. A. Reader")


def test_the_ai_can_be_hidden_from_the_second_reader_too(ward: Ward) -> None:
    asked(ward, of=ward.second_reader, hides_ai=True)
    view = _view(ward)
    assert {cell.current_class for cell in view.cells} == {CellClass.UNIDENTIFIED}
    assert view.flags == []


@pytest.mark.parametrize("of_anyone", [False, True])
def test_the_worklist_tells_nothing_of_an_ai_that_is_hidden_from_the_second_reader(
    ward: Ward, *, of_anyone: bool
) -> None:
    asked(ward, of=None if of_anyone else ward.second_reader, hides_ai=True)
    flag = "immature.granulocytes"
    with ward.centre.runtime.database.session(read_only=True) as session:
        whole = worklist(session, ward.second_reader, WorklistFilter())
        (row,) = whole.rows
        assert (row.blind, row.flags, row.doubtful_count, whole.flags) == (True, [], 0, [])
        assert lines_of(session, ward.second_reader, WorklistFilter(), [ward.case_id]) == [row]
        for wanted in (WorklistFilter(flag=flag), WorklistFilter(search="immature")):
            assert worklist(session, ward.second_reader, wanted).rows == []
            assert worklist(session, ward.second_reader, wanted).matching == 0
        ranks = {}
        for sort in (Sort.FLAGS, Sort.DOUBTFUL):
            (row,) = worklist(session, ward.second_reader, WorklistFilter(sort=sort)).rows
            ranks[sort] = row.key[0]
        assert ranks == {Sort.FLAGS: NO_FLAG, Sort.DOUBTFUL: 0}
        for who in (ward.reader, ward.it):
            (row,) = worklist(session, who, WorklistFilter(flag=flag, sort=Sort.DOUBTFUL)).rows
            assert (row.blind, row.flags != [], row.key[0]) == (False, True, row.doubtful_count)
            assert row.doubtful_count > 0


def test_the_worklist_shows_the_ai_to_a_second_reader_who_sees_it(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    with ward.centre.runtime.database.session(read_only=True) as session:
        (row,) = worklist(session, ward.second_reader, WorklistFilter(flag="immature.granulocytes")).rows
    assert (row.blind, row.flags != [], row.second_opinion) == (False, True, "you")


def test_what_is_asked_of_anyone_is_hidden_from_all_who_could_give_it_and_taken_once(ward: Ward) -> None:
    asked(ward, of=None)
    _change(ward, ["c1"], BL, "k1")
    view = _view(ward)
    assert view.blind is not None
    assert (view.blind.takeable, view.blind.mine) == (True, False)
    with pytest.raises(ConflictError, match="Take the opinion"):
        classify(ward, ["c1"], MO, "k2", who=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        second_opinions.take(session, ward.second_reader, ward.case_id)
    assert classify(ward, ["c1"], MO, "k3", who=ward.second_reader).changes == 1
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        second_opinions.take(session, ward.reader, ward.case_id)


def test_the_second_reader_cannot_claim_or_look_the_history_up(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    _change(ward, ["c1"], BL, "k1")
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(ConflictError):
            cases.claim(session, ward.second_reader, ward.case_id, take_over=True)
        with pytest.raises(ConflictError):
            service.history(session, ward.second_reader, ward.case_id)
        service.save_impression(session, ward.reader, ward.case_id, "My own words.")
        assert service.impression(session, ward.second_reader, ward.case_id) == ""
        assert second_opinions.opinions(session, ward.second_reader, ward.case_id) == []


def test_both_are_laid_side_by_side_once_the_second_is_saved(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    _change(ward, ["c1"], BL, "k1")
    with ward.centre.runtime.database.session() as session, pytest.raises(NotFoundError):
        second_opinions.compared(session, ward.reader, ward.case_id, opinion_id)
    classify(ward, ["c2"], MO, "k2", who=ward.second_reader)
    assert save(ward, who=ward.second_reader, text="No blast.") == opinion_id
    _change(ward, ["c3"], BL, "k3")
    for who in (ward.reader, ward.second_reader):
        with ward.centre.runtime.database.session() as session:
            both = second_opinions.compared(session, who, ward.case_id, opinion_id)
        assert {(one.cell.cell_id, one.first, one.second) for one in both.cells} == {("c1", BL, NE), ("c2", NE, MO)}
        agreement = both.opinion.agreement
        assert agreement is not None
        assert (agreement.cells, agreement.agreed) == (22, 20)
        assert (agreement.low or 0) < (agreement.kappa or 0) < (agreement.high or 0) <= 1
        assert both.opinion.text == "No blast."
        assert both.decidable == (who == ward.reader)


def test_cells_that_the_hospital_sent_later_are_read_and_compared_like_the_others(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    before = {cell.cell_id for cell in _view(ward).cells}
    place = NewBox(cell_id="r0123456789ab", box=(10, 180, 60, 230))
    geometry.add(
        ward.centre.runtime, ward.reader, ward.case_id, field=0, place=place, label=BL, idempotency_key="added-one"
    )
    sent_later(ward, ["c1", "c2"])
    _change(ward, ["c1"], BL, "k1")
    cells = _view(ward).cells
    assert {cell.cell_id for cell in cells} == before
    assert sorted(cell.number for cell in cells) == list(range(1, len(before) + 1))
    assert classify(ward, ["c2"], MO, "k2", who=ward.second_reader).changes == 1
    save(ward, who=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        both = second_opinions.compared(session, ward.reader, ward.case_id, opinion_id)
    assert {(one.cell.cell_id, one.first, one.second) for one in both.cells} == {("c1", BL, NE), ("c2", NE, MO)}
    assert both.opinion.agreement is not None
    assert both.opinion.agreement.cells == len(before)
    first, second = both.first_differential, both.second_differential
    assert sum(share.count for share in first.values()) == sum(share.count for share in second.values())


def test_what_the_second_named_is_kept_where_the_first_has_merged(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    geometry.merge(
        ward.centre.runtime, ward.reader, ward.case_id, cell_ids=["c5", "c6"], new_id="r0123456789ac",
        idempotency_key="merged",
    )  # fmt: skip
    classify(ward, ["c5"], MO, "k1", who=ward.second_reader)
    shown = {cell.cell_id for cell in _view(ward).cells}
    save(ward, who=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        both = second_opinions.compared(session, ward.reader, ward.case_id, opinion_id)
        row = session.get_one(Opinion, opinion_id)
        assert (set(row.labels), row.labels["c5"]) == (shown, "monocyte")
        assert row.compared_with.keys() == shown - {"c5", "c6"}
        entry = session.exec(select(AuditEntry).where(AuditEntry.action == "opinion.second_saved")).one()
        assert entry.data["labels"]["c5"] == "monocyte"
    assert both.second_differential[MO].count == both.first_differential[MO].count + 1
    assert both.cells == []


def test_a_finer_name_is_no_disagreement(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    classify(ward, ["c1"], CellClass.BAND_NEUTROPHIL, "k1", who=ward.second_reader)
    save(ward, who=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        both = second_opinions.compared(session, ward.reader, ward.case_id, opinion_id)
    assert both.cells == []
    assert both.opinion.agreement is not None
    assert both.opinion.agreement.kappa == 1.0


def test_the_first_reader_decides_and_signs_after_the_answer_or_the_withdrawal(ward: Ward) -> None:
    opinion_id = asked(ward, of=None)
    with ward.centre.runtime.database.session() as session:
        look_through(session, ward.reader, ward.case_id)
    with pytest.raises(ConflictError, match="second opinion"):
        _sign(ward)
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(ConflictError):
            second_opinions.withdraw(session, ward.second_reader, ward.case_id, opinion_id)
        second_opinions.withdraw(session, ward.reader, ward.case_id, opinion_id)
    assert _sign(ward)


def test_an_opinion_that_was_not_on_the_page_is_not_signed_over(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    classify(ward, ["c1"], BL, "k1", who=ward.second_reader)
    save(ward, who=ward.second_reader)
    with pytest.raises(ConflictError, match="given since"):
        _sign(ward)
    assert _sign(ward, opinions=[opinion_id])


def test_whoever_has_worked_on_the_case_cannot_be_asked(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.second_reader, ward.case_id)
    _change(ward, ["c1"], BL, "k1", who=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        cases.release(session, ward.second_reader, ward.case_id)
    with pytest.raises(ConflictError, match="has worked"):
        asked(ward, of=ward.second_reader)
    asked(ward, of=None)
    assert _view(ward).blind is None


def test_whoever_has_only_assigned_the_case_can_be_asked_and_reads_blind(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        for to in (ward.second_reader.user_id, None, ward.reader.user_id):
            assert assign(session, ward.second_reader, [ward.case_id], to).done == [ward.case_id]
    opinion_id = asked(ward, of=None)
    assert _view(ward).blind is not None
    with ward.centre.runtime.database.session() as session:
        second_opinions.withdraw(session, ward.reader, ward.case_id, opinion_id)
    assert asked(ward, of=ward.second_reader)


def test_whoever_was_asked_before_cannot_be_asked_again_nor_take_what_is_asked_of_anyone(ward: Ward) -> None:
    opinion_id = asked(ward, of=ward.second_reader)
    with ward.centre.runtime.database.session() as session:
        second_opinions.withdraw(session, ward.reader, ward.case_id, opinion_id)
    assert _view(ward).blind is None
    with pytest.raises(ConflictError, match="asked about it before"):
        asked(ward, of=ward.second_reader)
    asked(ward, of=None)
    assert _view(ward).blind is None
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        second_opinions.take(session, ward.second_reader, ward.case_id)


def test_whoever_has_read_a_question_on_the_case_cannot_be_asked(ward: Ward) -> None:
    second = ward.second_reader
    question = Asked(text="I take c1 for a blast. You?", people=[second.user_id], key="key-1")
    with ward.centre.runtime.database.session() as session:
        consult.ask(session, ward.reader, ward.case_id, About(), question)
    opinion_id = asked(ward, of=second)
    assert _view(ward).blind is not None, "asked, and not read: still blind"
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(ConflictError, match="blind"):
            consult.threads(session, second, ward.case_id)
        second_opinions.withdraw(session, ward.reader, ward.case_id, opinion_id)
        consult.seen(session, second, ward.case_id)
    with pytest.raises(ConflictError, match="has read a question"):
        asked(ward, of=second)
    asked(ward, of=None)
    assert _view(ward).blind is None
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError, match="asked of you"):
        second_opinions.take(session, second, ward.case_id)


def test_the_worklist_tells_whom_an_opinion_is_asked_of(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    seen = {}
    with ward.centre.runtime.database.session(read_only=True) as session:
        for name, who in (("reader", ward.reader), ("second", ward.second_reader)):
            for mine in (False, True):
                (row,) = worklist(session, who, WorklistFilter(reader="me" if mine else "")).rows
                seen[name] = (row.second_opinion, row.asked_by)
    assert seen == {"reader": ("asked", None), "second": ("you", "Dr. A. Reader")}


def test_one_opinion_at_a_time_and_only_of_a_reader(ward: Ward) -> None:
    asked(ward, of=None)
    for of in (None, ward.second_reader):
        with pytest.raises(ConflictError):
            asked(ward, of=of)
    with ward.centre.runtime.database.session() as session:
        case = session.exec(select(Case)).one()
        assert case.version > 0
        (one,) = second_opinions.opinions(session, ward.reader, ward.case_id)
        second_opinions.withdraw(session, ward.reader, ward.case_id, one.id)
    with pytest.raises(NotFoundError):
        asked(ward, of=ward.coordinator)


def test_undo_of_a_confirmation_takes_it_back(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    doubtful = next(cell.cell_id for cell in _view(ward).cells if cell.doubtful)
    (cell,) = classify(ward, [doubtful], None, "k1", who=ward.second_reader).cells
    assert (cell.doubtful, cell.current_class) == (False, cell.ai_class)
    with ward.centre.runtime.database.session() as session:
        (cell,) = opinions.undo(session, ward.second_reader, ward.case_id, "u1").cells
    assert (cell.doubtful, cell.changed_by) == (True, None)
