"""The worklist, the reading room, claims, and who may see what."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import event
from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import grants, service, worklist
from server.cases.ingest import ingest
from server.cases.lifecycle import TRANSITIONS, check_transition
from server.cases.schemas import WorklistFilter
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import CaseState, GrantRequest, Priority
from shared.contracts.errors import ConflictError, DataInvalidError, ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass
from tests.factories import centre_key, make_context, pack
from tests.server.conftest import Ward


def _add_case(
    ward: Ward, *, hospital: str = "a", priority: Priority = Priority.ROUTINE, pseudonym: str = "cd" * 16
) -> str:
    node = ward.node if hospital == "a" else ward.other_node
    parcel = pack(node, centre_key(ward.centre), priority=priority, context=make_context(pseudonym))
    parcel.upload(ward.centre.store)
    ingest(ward.centre.runtime, hospital_id=hospital, case_id=parcel.case_id)
    return parcel.case_id


def test_worklist_puts_stat_first_then_due_time(ward: Ward) -> None:
    routine, stat = _add_case(ward), _add_case(ward, hospital="b", priority=Priority.STAT)
    with ward.centre.runtime.database.session() as session:
        listed = worklist.worklist(session, ward.reader, WorklistFilter())
    assert [row.case_id for row in listed.rows] == [stat, ward.case_id, routine]
    assert (listed.to_read, listed.stat) == (3, 1)
    assert listed.hospitals == {"a": "Hospital A", "b": "Hospital B"}
    assert listed.flags == ["immature.granulocytes", "too_few_cells"]


def test_worklist_of_hospital_it_shows_its_hospital_only(ward: Ward) -> None:
    _add_case(ward, hospital="b", priority=Priority.STAT)
    with ward.centre.runtime.database.session() as session:
        listed = worklist.worklist(session, ward.it, WorklistFilter(state="all"))
        asked = worklist.worklist(session, ward.it, WorklistFilter(state="all", hospital_id="b"))
    assert [row.case_id for row in listed.rows] == [ward.case_id]
    assert (listed.to_read, listed.stat, listed.hospitals) == (1, 0, {"a": "Hospital A"})
    assert asked.rows == []


def test_worklist_is_closed_to_coordinators(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session, pytest.raises(ForbiddenError):
        worklist.worklist(session, ward.coordinator, WorklistFilter())


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (WorklistFilter(search="hospital a"), 1),
        (WorklistFilter(search="hospital b"), 0),
        (WorklistFilter(search="immature"), 1),
        (WorklistFilter(flag="too_few_cells"), 1),
        (WorklistFilter(flag="blast.present"), 0),
        (WorklistFilter(reader="me"), 0),
        (WorklistFilter(state="done"), 0),
    ],
)
def test_worklist_filters(ward: Ward, wanted: WorklistFilter, found: int) -> None:
    with ward.centre.runtime.database.session() as session:
        assert len(worklist.worklist(session, ward.reader, wanted).rows) == found


def test_case_view_groups_cells_and_puts_doubt_first(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        view = service.case_view(session, ward.reader, ward.case_id)
    orders = [cell.current_class.order for cell in view.cells]
    assert orders == sorted(orders)
    neutrophils = [cell for cell in view.cells if cell.current_class is CellClass.NEUTROPHIL]
    assert [cell.number for cell in neutrophils] == [5, 10, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12]
    assert [cell.doubtful for cell in neutrophils[:3]] == [True, True, False]
    assert view.differential == view.ai_differential
    assert view.differential[CellClass.NEUTROPHIL].count == 12
    assert (view.fields[0].blob, view.context.age_band) == ("field-0.jpg", "60-69")


def test_case_view_names_earlier_cases_of_the_same_patient_and_hospital(ward: Ward) -> None:
    _add_case(ward, hospital="b", pseudonym="ab" * 16)
    later = _add_case(ward, pseudonym="ab" * 16)
    with ward.centre.runtime.database.session() as session:
        assert service.case_view(session, ward.reader, later).earlier_cases == [ward.case_id]


def test_case_of_another_hospital_is_not_found(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(NotFoundError):
            service.case_view(session, ward.other_it, ward.case_id)
        assert service.receipt(session, hospital_id="b", case_id=ward.case_id).state is None
        assert service.receipt(session, hospital_id="a", case_id=ward.case_id).state is CaseState.AVAILABLE


def _claim(ward: Ward, who: Principal, *, take_over: bool = False) -> None:
    with ward.centre.runtime.database.session() as session:
        service.claim(session, who, ward.case_id, take_over=take_over)


def _holder(ward: Ward) -> tuple[str | None, CaseState]:
    with ward.centre.runtime.database.session() as session:
        view = service.case_view(session, ward.reader, ward.case_id)
    return view.claimed_by, view.state


def test_claim_holds_the_case_against_others(ward: Ward) -> None:
    _claim(ward, ward.reader)
    _claim(ward, ward.reader)
    with pytest.raises(ConflictError, match=r"Dr\. A\. Reader"):
        _claim(ward, ward.second_reader)
    assert _holder(ward) == ("Dr. A. Reader", CaseState.CLAIMED)
    _claim(ward, ward.second_reader, take_over=True)
    assert _holder(ward) == ("Dr. B. Second", CaseState.CLAIMED)
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        service.heartbeat_lease(session, ward.reader, ward.case_id)


def test_claim_lapses_without_heartbeat(ward: Ward) -> None:
    with time_machine.travel(utc_now() - timedelta(minutes=8)):
        _claim(ward, ward.reader)
    with time_machine.travel(utc_now() - timedelta(minutes=4)), ward.centre.runtime.database.session() as session:
        service.heartbeat_lease(session, ward.reader, ward.case_id)
    assert _holder(ward)[0] == "Dr. A. Reader"
    with time_machine.travel(utc_now() + timedelta(minutes=6)):
        assert _holder(ward)[0] is None
        with ward.centre.runtime.database.session() as session:
            row = worklist.worklist(session, ward.reader, WorklistFilter()).rows[0]
        assert (row.state, row.claimed_by) == (CaseState.AVAILABLE, None)
        _claim(ward, ward.second_reader)
        assert _holder(ward)[0] == "Dr. B. Second"


def test_claim_is_for_hematologists(ward: Ward) -> None:
    for who in (ward.it, ward.coordinator):
        with pytest.raises(ForbiddenError):
            _claim(ward, who)


def test_release_makes_the_case_available_again(ward: Ward) -> None:
    _claim(ward, ward.reader)
    with ward.centre.runtime.database.session() as session:
        service.release(session, ward.reader, ward.case_id)
    assert _holder(ward) == (None, CaseState.AVAILABLE)


def test_finished_cases_open_again_for_a_review_only_and_none_skips_signing() -> None:
    ends = {state for state, after in TRANSITIONS.items() if not after}
    assert ends == {CaseState.RECALLED}
    assert TRANSITIONS[CaseState.CLOSED] == TRANSITIONS[CaseState.REJECTED] == {CaseState.IN_REVIEW}
    assert TRANSITIONS.keys() == set(CaseState)
    assert [state for state, after in TRANSITIONS.items() if CaseState.SIGNED in after] == [CaseState.READY]
    with pytest.raises(ConflictError, match="available"):
        check_transition(CaseState.AVAILABLE, CaseState.SIGNED)


def test_grants_stay_below_the_hospitals_own_prefix(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        names = ("blobs/field-0.jpg", "key.json", "manifest.json")
        given = grants.grant(
            session, ward.centre.store, hospital_id="b", case_id="HV-ABCDEFGH", request=GrantRequest(names=names)
        )
        assert tuple(given.urls) == names
        assert all("cases/b/HV-ABCDEFGH/" in url for url in given.urls.values())
        for bad in ("../x", "blobs/../../x", "other.json", "blobs/field-0.jpg/x"):
            with pytest.raises(DataInvalidError):
                grants.grant(
                    session,
                    ward.centre.store,
                    hospital_id="b",
                    case_id="HV-ABCDEFGH",
                    request=GrantRequest(names=(bad,)),
                )


def test_grants_for_a_case_taken_in_are_refused(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session, pytest.raises(ConflictError):
        grants.grant(
            session, ward.centre.store, hospital_id="a", case_id=ward.case_id, request=GrantRequest(names=("key.json",))
        )
    with ward.centre.runtime.database.session() as session:
        assert session.get_one(Case, ward.case_id).state is CaseState.AVAILABLE


def _statements(ward: Ward, act: Callable[[Session], object]) -> int:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    engine = ward.centre.runtime.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        with ward.centre.runtime.database.session() as session:
            act(session)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(seen)


def test_worklist_asks_the_same_number_of_questions_for_one_and_three_cases(ward: Ward) -> None:
    def look(session: Session) -> object:
        return worklist.worklist(session, ward.reader, WorklistFilter())

    one = _statements(ward, look)
    for hospital in ("a", "b"):
        _add_case(ward, hospital=hospital)
    assert _statements(ward, look) == one


def test_claim_by_two_readers_at_once_goes_to_one(ward: Ward) -> None:
    def attempt(who: Principal) -> bool:
        try:
            _claim(ward, who)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(attempt, (ward.reader, ward.second_reader)))
    assert sorted(won) == [False, True]
