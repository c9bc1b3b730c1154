"""Runs that are launched at a time of the week, if enough labels have come."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlmodel import Session

import server.audit.service as audit
from server.accounts.roles import Role
from server.federation import labels, schedule, service
from server.federation.schedule import When
from server.federation.schemas import RunPlan
from server.federation.states import RunState
from server.models import Run, RunSchedule
from shared.contracts.errors import ForbiddenError, NotFoundError, UsageError
from tests.server.federation.world import COORDINATOR, census, new_database, node_of, person

SUNDAY = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)
IMPORTED = 2 * 68
"""Labelled cells that north and south have imported; before the first completed run they are new."""


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database().session() as session:
        _labels(session, north=0, south=0)
        yield session


def _labels(session: Session, **counts: int) -> None:
    for hospital, count in counts.items():
        counted = census(neutrophil=30, lymphocyte=30 + count).model_copy(update={"feedback": count})
        service.store_census(session, node_of(hospital), counted)


def _weekly(session: Session, least: int = 0) -> RunSchedule:
    when = When(weekday=6, hour=2, least_labels=least)
    row = session.get_one(RunSchedule, schedule.add(session, COORDINATOR, RunPlan(rounds=2), when))
    row.considered_at = SUNDAY.replace(day=25)
    return row


def _complete(session: Session, run_id: str) -> None:
    session.get_one(Run, run_id).state = RunState.COMPLETED


def test_a_run_is_launched_once_at_its_time(session: Session) -> None:
    row = _weekly(session)
    assert schedule.launch_due(session, SUNDAY.replace(day=28, hour=23)) == []
    [run_id] = schedule.launch_due(session, SUNDAY.replace(minute=1))
    assert schedule.launch_due(session, SUNDAY.replace(minute=2)) == []
    run = session.get_one(Run, run_id)
    assert (run.rounds, run.created_by, run.state, row.run_id) == (2, "schedule", RunState.QUEUED, run_id)
    assert service.events_since(session, run_id, 0)[-1].text == (
        f"By the schedule “every Sunday at 02:00 UTC”: {IMPORTED} new labels"
    )
    [shown] = schedule.view(session, COORDINATOR)
    assert (shown.when, shown.outcome) == (
        "every Sunday at 02:00 UTC",
        f"2026-11-29 02:00 UTC: launched with {IMPORTED} new labels",
    )


def test_only_labels_that_no_completed_run_has_learnt_from_count(session: Session) -> None:
    _weekly(session, least=200)
    _labels(session, north=150, south=80)
    [first] = schedule.launch_due(session, SUNDAY)
    _complete(session, first)
    # South's labels were counted anew after an import; what north gained does not make up for too few.
    _labels(session, north=349, south=20)
    assert labels.fresh(session) == 199
    next_week = SUNDAY.replace(month=12, day=6)
    assert schedule.launch_due(session, next_week) == []
    [shown] = schedule.view(session, COORDINATOR)
    assert shown.outcome == ("2026-12-06 02:00 UTC: not launched: 199 new labels since the last run, 200 are asked for")
    entry = audit.search(session, COORDINATOR, subject=f"schedule:{shown.id}")[0]
    assert (entry.action, entry.actor) == ("federation.schedule_skip", "system:schedule")
    _labels(session, north=350)
    assert len(schedule.launch_due(session, next_week.replace(day=13))) == 1


def test_labels_of_a_failed_run_are_still_new(session: Session) -> None:
    _weekly(session, least=10)
    _labels(session, north=10)
    [first] = schedule.launch_due(session, SUNDAY)
    service.fail(session, first, "whatever")
    assert labels.fresh(session) == IMPORTED + 10


def test_a_time_that_the_centre_slept_through_is_let_go_with_a_reason(session: Session) -> None:
    row = _weekly(session)
    assert schedule.launch_due(session, SUNDAY.replace(hour=9)) == []
    assert row.outcome == "2026-11-29 02:00 UTC: not launched: the centre was away at 02:00 UTC"


def test_a_plan_that_cannot_be_read_any_more_says_so_and_stops_no_other(session: Session) -> None:
    broken, sound = _weekly(session), _weekly(session)
    broken.plan = {**broken.plan, "strategy": "of another version"}
    session.flush()
    [run_id] = schedule.launch_due(session, SUNDAY)
    assert sound.run_id == run_id
    assert broken.outcome == f"2026-11-29 02:00 UTC: not launched: {schedule.UNREADABLE}"
    shown = {view.id: view.plan for view in schedule.view(session, COORDINATOR)}
    assert shown == {broken.id: None, sound.id: RunPlan(rounds=2)}


def test_a_run_under_way_is_waited_for_until_the_next_time(session: Session) -> None:
    row = _weekly(session)
    service.start_run(session, COORDINATOR, RunPlan())
    assert schedule.launch_due(session, SUNDAY) == []
    assert "is under way" in row.outcome
    assert schedule.launch_due(session, SUNDAY.replace(minute=3)) == []


def test_a_daily_schedule_comes_every_day(session: Session) -> None:
    key = schedule.add(session, COORDINATOR, RunPlan(), When(weekday=None, hour=23, minute=30))
    row = session.get_one(RunSchedule, key)
    row.considered_at = SUNDAY
    [first] = schedule.launch_due(session, SUNDAY.replace(hour=23, minute=30))
    _complete(session, first)
    assert len(schedule.launch_due(session, SUNDAY.replace(day=30, hour=23, minute=45))) == 1


def test_a_new_schedule_does_not_make_up_for_times_before_it_was_made(session: Session) -> None:
    schedule.add(session, COORDINATOR, RunPlan(), When(weekday=None, hour=0))
    assert schedule.launch_due(session, datetime.now(UTC)) == []


def test_a_plan_that_cannot_be_launched_is_not_kept(session: Session) -> None:
    with pytest.raises(UsageError):
        schedule.add(session, COORDINATOR, RunPlan(recipe={"ema": 9}), When(hour=1))
    assert schedule.view(session, COORDINATOR) == []


def test_schedules_are_the_coordinators(session: Session) -> None:
    key = _weekly(session).id
    clerk = person(Role.HOSPITAL_IT, "north")
    for action in (
        lambda: schedule.add(session, clerk, RunPlan(), When(hour=1)),
        lambda: schedule.remove(session, clerk, key),
    ):
        with pytest.raises(ForbiddenError):
            action()
    schedule.remove(session, COORDINATOR, key)
    assert schedule.view(session, clerk) == []
    with pytest.raises(NotFoundError):
        schedule.remove(session, COORDINATOR, key)
