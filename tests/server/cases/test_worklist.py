"""The worklist's pages and order, assigning many at once, saved views, and turn-around targets."""

from datetime import timedelta
from itertools import pairwise

import pytest
from sqlmodel import Session, col, select

from server.accounts.schemas import Principal
from server.cases import saved_views, service, worklist
from server.cases.ingest import ingest
from server.cases.lifecycle import LEASE
from server.cases.schemas import Sort, WorklistFilter
from server.models import AuditEntry, Case, User
from server.models.base import utc_now
from shared.contracts.case import CaseState, Priority
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from tests.factories import centre_key, make_context, pack
from tests.server.conftest import Ward


def many(session: Session, ward: Ward, count: int) -> list[str]:
    """Add copies of the ward's case: of both hospitals, all priorities and many times."""
    pattern = session.get_one(Case, ward.case_id)
    made = []
    for number in range(count):
        case = Case(**pattern.model_dump())
        case.id = f"HV-{number:08d}"
        case.hospital_id, case.node_id = ("a", "node-a") if number % 3 else ("b", "node-b")
        case.priority = list(Priority)[number % 3]
        case.received_at = utc_now() - timedelta(minutes=number % 17)
        case.due_at = case.received_at + timedelta(hours=1)
        case.doubtful_count = number % 5
        session.add(case)
        made.append(case.id)
    session.flush()
    return made


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("down", [False, True])
def test_pages_hold_every_case_once_in_order(ward: Ward, sort: Sort, *, down: bool) -> None:
    wanted = WorklistFilter(sort=sort, descending=down)
    with ward.centre.runtime.database.session() as session:
        made = {*many(session, ward, 60), ward.case_id}
        rows, after, more = [], None, True
        while more:
            page = worklist.worklist(session, ward.reader, wanted, after=after, most=7)
            rows += page.rows
            after, more = page.rows[-1].case_id, page.more
            assert page.matching == 61
    assert [row.case_id for row in rows] == list(dict.fromkeys(row.case_id for row in rows))
    assert {row.case_id for row in rows} == made
    keys = [row.key for row in rows]
    assert keys == sorted(keys, reverse=down), "lines compare by their keys as the list is sorted"


def test_filters_by_priority_reader_lateness_and_state(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        made = many(session, ward, 6)
        session.get_one(Case, made[0]).due_at = utc_now() - timedelta(minutes=1)
        worklist.assign(session, ward.reader, made[1:3], ward.second_reader.user_id)
        service.claim(session, ward.reader, made[3])

        def found(principal: Principal = ward.reader, **wanted: object) -> set[str]:
            shown = worklist.worklist(session, principal, WorklistFilter.model_validate(wanted))
            return {row.case_id for row in shown.rows}

        assert found(late=True) == {made[0]}
        assert found(priority="routine") == {made[2], made[5]}
        assert found(reader="me") == {made[3]}
        assert found(ward.second_reader, reader="me") == {made[1], made[2]}
        assert found(reader=ward.second_reader.user_id) == {made[1], made[2]}
        assert found(reader="nobody") == {made[0], made[4], made[5], ward.case_id}
        assert found(state="reading") == {made[3]}
        assert found(state="waiting") == {*made, ward.case_id} - {made[3]}
        assert found(search="b. second") == {made[1], made[2]}
        tally = worklist.worklist(session, ward.reader, WorklistFilter(state="done"))
    assert (tally.to_read, tally.stat, tally.late, tally.mine, tally.matching) == (7, 2, 1, 1, 0)


def test_assigning_many_tells_which_could_not_be_and_is_audited(ward: Ward) -> None:
    to = ward.second_reader.user_id
    with ward.centre.runtime.database.session() as session:
        free, held, done = many(session, ward, 3)
        service.claim(session, ward.second_reader, held)
        session.get_one(Case, done).state = CaseState.SIGNED
        told = worklist.assign(session, ward.reader, [free, held, done, "HV-0000NONE"], ward.reader.user_id)
        assert told.done == [free]
        assert {one.case_id: one.reason for one in told.failed} == {
            held: "Dr. B. Second is reading it; take it over if you have agreed.",
            done: "It is signed already.",
            "HV-0000NONE": "There is no such case.",
        }
        # Whoever holds it may be given it, and once more is no second entry.
        assert worklist.assign(session, ward.reader, [held], to).failed == []
        assert worklist.assign(session, ward.reader, [held], to).failed == []
        assert worklist.assign(session, ward.reader, [free], None).done == [free]
        row = next(line for line in worklist.lines_of(session, ward.reader, WorklistFilter(), [held]))
        assert (row.assigned_to, row.claimed_by) == ("Dr. B. Second", "Dr. B. Second")
        entries = session.exec(
            select(AuditEntry).where(col(AuditEntry.action).like("case.%assigned")).order_by(col(AuditEntry.at))
        ).all()
    assert [(entry.subject, entry.action, entry.data) for entry in entries] == [
        (f"case:{free}", "case.assigned", {"from": None, "to": ward.reader.user_id}),
        (f"case:{held}", "case.assigned", {"from": None, "to": to}),
        (f"case:{free}", "case.unassigned", {"from": ward.reader.user_id, "to": None}),
    ]
    assert {entry.actor for entry in entries} == {ward.reader.actor}


def test_assigning_is_for_readers_and_to_readers_who_may_sign_in(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(ForbiddenError):
            worklist.assign(session, ward.it, [ward.case_id], ward.reader.user_id)
        for nobody in (ward.it.user_id, "x"):
            with pytest.raises(NotFoundError):
                worklist.assign(session, ward.reader, [ward.case_id], nobody)
        session.get_one(User, ward.second_reader.user_id).active = False
        with pytest.raises(NotFoundError):
            worklist.assign(session, ward.reader, [ward.case_id], ward.second_reader.user_id)
        with pytest.raises(UsageError):
            worklist.assign(session, ward.reader, [], None)


def test_marks_change_with_what_a_line_shows_and_with_a_lease_that_lapses(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        marks = [worklist.marks(session)]
        service.claim(session, ward.reader, ward.case_id)
        marks.append(worklist.marks(session))
        service.heartbeat_lease(session, ward.reader, ward.case_id)
        assert worklist.marks(session) == marks[-1], "a heartbeat changes no line"
        session.get_one(Case, ward.case_id).lease_until = utc_now() - LEASE
        session.flush()
        marks.append(worklist.marks(session))
        worklist.assign(session, ward.reader, [ward.case_id], ward.reader.user_id)
        session.flush()
        marks.append(worklist.marks(session))
    assert all(before != after for before, after in pairwise(marks))


def test_saved_views_are_ones_own_named_once_with_one_default(ward: Ward) -> None:
    stat = WorklistFilter(priority=Priority.STAT, sort=Sort.DUE)
    with ward.centre.runtime.database.session() as session:
        first = saved_views.save(session, ward.reader, name="  STAT   first ", wanted=stat, default=True)
        second = saved_views.save(session, ward.reader, name="Late", wanted=WorklistFilter(late=True), default=True)
        assert (first.name, first.wanted) == ("STAT first", stat)
        with pytest.raises(ConflictError, match="choose another name"):
            saved_views.save(session, ward.reader, name="late", wanted=stat)
        with pytest.raises(UsageError):
            saved_views.save(session, ward.reader, name=" ", wanted=stat)
        assert [view.is_default for view in saved_views.views_of(session, ward.reader)] == [False, True]
        saved_views.update(session, ward.reader, first.id, name="Hot", wanted=WorklistFilter(), default=True)
        shown = saved_views.views_of(session, ward.reader)
        assert [(view.name, view.is_default) for view in shown] == [("Hot", True), ("Late", False)]
        assert shown[0].wanted == WorklistFilter()
        assert saved_views.views_of(session, ward.second_reader) == []
        for act in (saved_views.delete, saved_views.update):
            with pytest.raises(NotFoundError):
                act(session, ward.second_reader, second.id)
        saved_views.update(session, ward.reader, first.id, default=False)
        saved_views.delete(session, ward.reader, second.id)
        assert [(view.name, view.is_default) for view in saved_views.views_of(session, ward.reader)] == [("Hot", False)]


def test_targets_are_the_hospitals_own_and_move_open_cases(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        case = session.get_one(Case, ward.case_id)
        assert case.due_at - case.received_at == timedelta(hours=4)
        other = many(session, ward, 1)[0]
        before = session.get_one(Case, other).due_at
        worklist.set_targets(session, ward.it, "a", {Priority.URGENT: 90, Priority.STAT: None})
        assert case.due_at - case.received_at == timedelta(minutes=90)
        assert session.get_one(Case, other).due_at == before, "another hospital's clock goes on as it was"
        assert worklist.targets(session, "a") == {Priority.STAT: None, Priority.URGENT: 90, Priority.ROUTINE: None}
        for who in (ward.other_it, ward.reader):
            with pytest.raises(ForbiddenError):
                worklist.set_targets(session, who, "a", {Priority.URGENT: 5})
        for minutes in (1, 30 * 24 * 60):
            with pytest.raises(UsageError):
                worklist.set_targets(session, ward.coordinator, "a", {Priority.URGENT: minutes})
    parcel = pack(ward.node, centre_key(ward.centre), context=make_context("ef" * 16))
    parcel.upload(ward.centre.store)
    ingest(ward.centre.runtime, hospital_id="a", case_id=parcel.case_id)
    with ward.centre.runtime.database.session() as session:
        case = session.get_one(Case, parcel.case_id)
        assert case.due_at - case.received_at == timedelta(minutes=90)
        entries = session.exec(select(AuditEntry).where(AuditEntry.action == "hospital.targets")).all()
    assert [entry.data["urgent"] for entry in entries] == ["90 min"]
