"""A hospital whose SuperNode was killed: the run waits until it is connected again before it asks once more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlmodel import Session

from server.federation import attendance, service, steering
from server.federation.attendance import StoppedError
from server.federation.fleet import Answer, Ask
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.start import start_tensors
from server.federation.states import RunState
from server.runtime import Runtime
from shared.contracts.errors import RunFailedError
from shared.contracts.training import CalibrationSummary, EvaluateReply, EvaluateRequest, SiteMetrics, TrainRequest
from tests.server.federation.fleet import RECIPE, MemoryFleet, Site, new_run, trains
from tests.server.federation.world import COORDINATOR, new_centre

LOST = Answer(2, "", b"", problem="gone", offline=True)
EVALUATION = EvaluateReply(
    candidate=SiteMetrics(n=10, loss=0.7, accuracy=0.8, macro_f1=0.75),
    current=None,
    calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
    seconds=0.1,
)
AWAY = 150
"""Looks: longer than the round's deadline of a second, which is how long a sample waits for enough hospitals."""


@dataclass
class LosingFleet(MemoryFleet):
    """Node 2 is away for ``away`` looks once it was lost."""

    away: int = AWAY
    lost: bool = False
    when_away: Callable[[], None] = field(default=lambda: None)

    def online(self) -> set[int]:
        if not self.lost:
            return set(self.sites)
        self.away -= 1
        self.lost = self.away > 0
        self.when_away()
        return {1}


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setattr(attendance, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(attendance, "_STOP_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(attendance, "_GRACE_SECONDS", 0.05)
    with new_centre(tmp_path) as centre:
        yield centre


def _fleet(*, at: type[object] = TrainRequest, away: int = AWAY) -> LosingFleet:
    """Return two hospitals that train and evaluate; south is lost in the first request of one kind."""
    fleet = LosingFleet({}, away=away)

    def site(node_id: int) -> Site:
        def answer(ask: Ask) -> Answer | None:
            if node_id == 2 and fleet.away == away and isinstance(ask.request, at):
                fleet.lost = True
                return LOST
            if isinstance(ask.request, TrainRequest):
                return trains(node_id, step=0.0)(ask)
            return Answer(node_id, EVALUATION.model_dump_json(), b"")

        return answer

    fleet.sites = {1: site(1), 2: site(2)}
    return fleet


def _run(runtime: Runtime, *, min_sites: int = 2) -> str:
    return new_run(runtime, rounds=1, min_sites=min_sites, tensors=start_tensors(runtime, RECIPE).tensors)


def _view(runtime: Runtime, run_id: str) -> RunView:
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def _conduct(runtime: Runtime, run_id: str, fleet: MemoryFleet) -> str | None:
    return conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)


def test_a_lost_hospital_is_asked_again_once_it_is_back(runtime: Runtime) -> None:
    run_id, fleet = _run(runtime), _fleet()
    assert _conduct(runtime, run_id, fleet) is not None
    view = _view(runtime, run_id)
    assert (view.state, [row.replied for row in view.round_views]) == (RunState.COMPLETED, [2])
    assert [(group, node) for group, node, _ in fleet.asked if group == "1"] == [("1", 1), ("1", 2)] * 2
    told = [line.text for line in view.events if "again" in line.text]
    assert told[0].endswith("It is played again (1 of 3).")
    assert told[1:] == ["Waiting for south to be connected again"]


def test_a_hospital_that_was_lost_when_the_candidate_was_judged_is_waited_for(runtime: Runtime) -> None:
    """Though enough hospitals are left to go on: the gate must know."""
    run_id, fleet = _run(runtime, min_sites=1), _fleet(at=EvaluateRequest)
    assert _conduct(runtime, run_id, fleet) is not None
    view = _view(runtime, run_id)
    assert sorted(view.per_site) == ["north", "south"]
    assert "south did not evaluate and is asked again" in [line.text for line in view.events]


@pytest.mark.parametrize("at", [TrainRequest, EvaluateRequest])
def test_a_hospitals_staff_is_not_told_who_else_was_lost(runtime: Runtime, at: type[object]) -> None:
    run_id = _run(runtime)
    assert _conduct(runtime, run_id, _fleet(at=at)) is not None
    for own, other in (("north", "south"), ("south", "north")):
        with runtime.database.session(read_only=True) as session:
            seen = [line.text for line in service.events_since(session, run_id, 0, hospital_id=own)]
        assert any(own in text for text in seen)
        assert not any(other in text for text in seen)


def test_a_hospital_that_stays_away_is_waited_for_in_vain_for_a_while_only(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "_RETURN_SECONDS", 0.1)
    run_id, fleet = _run(runtime), _fleet(away=10**6)
    with pytest.raises(RunFailedError, match="1 hospitals are connected, 2 are needed"):
        _conduct(runtime, run_id, fleet)
    assert [node for _, node, _ in fleet.asked] == [1, 2]


def test_a_coordinator_who_stops_the_run_does_not_wait(runtime: Runtime) -> None:
    run_id, fleet = _run(runtime), _fleet(away=10**6)
    fleet.when_away = _once(runtime, lambda session: service.request_stop(session, COORDINATOR, run_id))
    with pytest.raises(StoppedError):
        _conduct(runtime, run_id, fleet)
    assert _view(runtime, run_id).state is RunState.STOPPED
    assert [node for _, node, _ in fleet.asked] == [1, 2]


def test_a_coordinator_who_pauses_the_run_does_not_wait(runtime: Runtime) -> None:
    run_id, fleet = _run(runtime), _fleet(away=10**6)
    fleet.when_away = _once(runtime, lambda session: steering.request_pause(session, COORDINATOR, run_id))
    assert _conduct(runtime, run_id, fleet) is None
    assert _view(runtime, run_id).state is RunState.PAUSED
    assert [node for _, node, _ in fleet.asked] == [1, 2]


def _once(runtime: Runtime, what: Callable[[Session], object]) -> Callable[[], None]:
    done: list[bool] = []

    def work() -> None:
        if not done:
            done.append(True)
            with runtime.database.session() as session:
                what(session)

    return work
