"""Turn-around by hospital and priority, and the quality of what nodes send."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import field_quality
from server.cases.turnaround import Turnaround, TurnaroundLine, turnaround
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import CaseState, Priority
from shared.contracts.errors import ForbiddenError
from tests.portal.factories import Network, add_hospital, staffed

STAT, ROUTINE = Priority.STAT, Priority.ROUTINE


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = staffed(tmp_path_factory.mktemp("centre"))
    for hospital in "ab":
        add_hospital(made, hospital)
    made.people["it"] = made.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    with made.centre.runtime.database.session() as session:
        for number, minutes in enumerate((20, 40, 50, 80), start=1):
            _add(session, f"A{number}", "a", STAT, target=60, took=minutes, focus=100.0 + number)
        _add(session, "A5", "a", STAT, target=60, waits=90, focus=300.0, warned=True)
        _add(session, "A6", "a", STAT, target=60, took=20, days_ago=20)
        _add(session, "B1", "b", ROUTINE, target=1440, took=600)
        _add(session, "B2", "b", ROUTINE, target=1440, waits=10)
    yield made
    made.centre.runtime.database.dispose()


def _add(
    session: Session,
    name: str,
    hospital: str,
    priority: Priority,
    *,
    target: int,
    took: int | None = None,
    waits: int = 0,
    days_ago: int = 0,
    focus: float = 120.0,
    warned: bool = False,
) -> None:
    signed_at = utc_now() - timedelta(days=days_ago) if took is not None else None
    received = signed_at - timedelta(minutes=took) if signed_at and took else utc_now() - timedelta(minutes=waits)
    quality = {"white_cells": 100, "focus": focus, "brightness": 230.0, "ood_fraction": 0.02}
    case = Case(
        id=f"HV-{name}", hospital_id=hospital, node_id=f"node-{hospital}", priority=priority,
        state=CaseState.SIGNED if signed_at else CaseState.AVAILABLE, model_version="m", patient_pseudonym=name,
        context={}, flags=[], quality={**quality, "warnings": ["Out of focus."] if warned else []}, differential={},
        smear_id="s", cell_count=100, doubtful_count=0, manifest={}, received_at=received,
        due_at=received + timedelta(minutes=target), signed_at=signed_at,
        claimed_at=received + timedelta(minutes=5) if signed_at else None,
    )  # fmt: skip
    session.add(case)


def _seen(network: Network, person: str, days: int = 7) -> Turnaround:
    with network.centre.runtime.database.session(read_only=True) as session:
        return turnaround(session, network.people[person], days)


def _line(found: Turnaround, hospital: str | None, priority: Priority) -> TurnaroundLine:
    (line,) = [one for one in found.lines if (one.hospital_id, one.priority) == (hospital, priority)]
    return line


def test_line_tells_median_range_share_in_time_and_what_waits(network: Network) -> None:
    line = _line(_seen(network, "coordinator"), "a", STAT)
    assert (line.signed, line.waiting, line.overdue) == (4, 1, 1)
    assert line.minutes == pytest.approx(45, abs=0.1)
    assert line.tenth == pytest.approx(26, abs=0.1)
    assert line.ninetieth == pytest.approx(71, abs=0.1)
    assert line.claimed_minutes == pytest.approx(5, abs=0.1)
    assert line.target_minutes == pytest.approx(60, abs=0.1)
    assert line.in_time is not None
    assert (line.in_time.count, line.in_time.percent) == (3, 75.0)
    assert (round(line.in_time.low, 1), round(line.in_time.high, 1)) == (19.4, 99.4)


def test_all_hospitals_stand_first_and_a_priority_without_cases_has_no_line(network: Network) -> None:
    found = _seen(network, "auditor")
    assert [(line.hospital_id, line.priority) for line in found.lines] == [
        (None, STAT), (None, ROUTINE), ("b", ROUTINE), ("a", STAT)
    ]  # fmt: skip


def test_span_is_whole_days_and_counts_each_signature_once(network: Network) -> None:
    week, month = _seen(network, "coordinator", 7), _seen(network, "coordinator", 30)
    assert [len(found.by_day) for found in (week, month)] == [7, 30]
    assert [sum(day.in_time for day in found.by_day) for found in (week, month)] == [4, 5]
    assert [sum(day.late for day in found.by_day) for found in (week, month)] == [1, 1]
    assert _line(month, "a", STAT).signed == 5


def test_hospital_staff_see_their_own_hospital_alone(network: Network) -> None:
    found = _seen(network, "it")
    assert {(line.hospital_id, line.priority) for line in found.lines} == {("a", STAT)}
    assert sum(day.in_time + day.late for day in found.by_day) == 4
    with network.centre.runtime.database.session(read_only=True) as session:
        assert set(field_quality.by_node(session, network.people["it"])) == {"node-a"}


def test_staff_without_a_hospital_see_nothing(network: Network) -> None:
    nobody = Principal(user_id="x", username="x", display_name="x", role=Role.HOSPITAL_IT, hospital_id=None)
    with network.centre.runtime.database.session(read_only=True) as session:
        assert turnaround(session, nobody).lines == []
        assert field_quality.by_node(session, nobody) == {}


def test_readers_are_refused(network: Network) -> None:
    with pytest.raises(ForbiddenError, match="coordinator"):
        _seen(network, "reader")


def test_quality_is_of_the_latest_cases_of_each_node(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    with network.centre.runtime.database.session(read_only=True) as session:
        found = field_quality.by_node(session, network.people["coordinator"])
        assert (found["node-a"].cases, found["node-a"].warned, found["node-b"].cases) == (6, 1, 2)
        assert found["node-a"].brightness == 230.0
        monkeypatch.setattr(field_quality, "LATEST", 2)
        latest = field_quality.by_node(session, network.people["coordinator"])["node-a"]
        assert (latest.cases, len(latest.focus_by_case)) == (2, 2)
