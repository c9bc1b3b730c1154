"""Hospitals that are lost, in a round or when the candidate is judged: they are waited for, and asked once more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.numpy import load
from sqlmodel import Session

import server.registry.service as registry
from server.federation import attendance, checkpoints, service, steering
from server.federation.attendance import StoppedError
from server.federation.fleet import Answer, Ask
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.start import start_tensors
from server.federation.states import RunState
from server.runtime import Runtime
from shared.contracts.errors import RunFailedError
from shared.contracts.training import (
    EvaluateRequest,
    Refusal,
    TrainRequest,
)
from tests.server.federation.fleet import EVALUATION, RECIPE, MemoryFleet, Site, new_run, says, trains
from tests.server.federation.world import COORDINATOR, new_centre

SITES = {1: trains(1, step=1.0), 2: trains(2, step=1.0)}
LOST = Answer(2, "", b"", problem="gone", offline=True)
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


def test_a_round_that_loses_hospitals_on_the_way_is_played_again(runtime: Runtime) -> None:
    """A relay, a SuperNode and a trainer that die one after the other, all in the first round."""
    run_id = new_run(runtime, rounds=1)
    deaths = [
        Answer(2, "", b"", problem="the relay died"),
        Answer(2, "", b"", problem="gone", offline=True),
        Answer(2, Refusal(code="service_unavailable", reason="No trainer.").model_dump_json(), b""),
    ]
    fleet = MemoryFleet({1: SITES[1], 2: lambda ask: deaths.pop(0) if deaths else SITES[2](ask)})
    with pytest.raises(RunFailedError, match="No hospital evaluated"):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    view = _view(runtime, run_id)
    assert [(row.round, row.replied) for row in view.round_views] == [(1, 2)]
    again = [event.text.rpartition("table. ")[2] for event in view.events if "played again" in event.text]
    assert again == [f"It is played again ({number} of 3)." for number in (1, 2, 3)]
    assert float(load(checkpoints.load(runtime.store, run_id, 1))["w"][0, 0]) == 1.0


def _evaluates(node_id: int, deaths: list[Answer] | None = None) -> Site:
    """Return a site that trains, and evaluates once it has died ``deaths``."""

    def site(ask: Ask) -> Answer | None:
        if isinstance(ask.request, TrainRequest):
            return trains(node_id, step=0.0)(ask)
        return deaths.pop() if deaths else Answer(node_id, EVALUATION.model_dump_json(), b"")

    return site


def test_a_hospital_that_is_lost_when_the_candidate_is_judged_is_asked_again(runtime: Runtime) -> None:
    """Else the gate would not know what the candidate does there."""
    run_id = new_run(runtime, rounds=1, tensors=start_tensors(runtime, RECIPE).tensors)
    fleet = MemoryFleet({1: _evaluates(1), 2: _evaluates(2, [Answer(2, "", b"", problem="the relay died")])})
    version = conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    view = _view(runtime, run_id)
    assert (view.state, view.model_version, sorted(view.per_site)) == (RunState.COMPLETED, version, ["north", "south"])
    assert [(group, node_id) for group, node_id, _ in fleet.asked] == [
        ("1", 1), ("1", 2), ("evaluate", 1), ("evaluate", 2), ("evaluate", 2),
    ]  # fmt: skip
    assert "south did not evaluate and is asked again" in [event.text for event in view.events]
    with runtime.database.session(read_only=True) as session:
        assert registry.model_view(session, COORDINATOR, version or "").gate.passed


def test_a_hospital_that_stays_away_from_the_evaluation_blocks_the_candidate_and_not_the_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.federation.attendance._RETURN_SECONDS", 0.1)
    run_id = new_run(runtime, rounds=1, tensors=start_tensors(runtime, RECIPE).tensors)
    sites: dict[int, Site] = {1: _evaluates(1)}

    def leave(_ask: Ask) -> Answer | None:
        del sites[2]
        return Answer(2, "", b"", problem="gone", offline=True)

    sites[2] = lambda ask: (_evaluates(2) if isinstance(ask.request, TrainRequest) else leave)(ask)
    version = conduct(runtime, run_id, MemoryFleet(sites), flower_run_id="7", breath_seconds=0)
    view = _view(runtime, run_id)
    assert (view.state, list(view.per_site)) == (RunState.COMPLETED, ["north"])
    with runtime.database.session(read_only=True) as session:
        gate = registry.model_view(session, COORDINATOR, version or "").gate
    assert [(finding.hospital_id, finding.kind) for finding in gate.findings] == [("south", "unheard")]


def test_a_hospital_that_is_too_slow_gets_one_more_chance_and_an_unwilling_one_none(runtime: Runtime) -> None:
    asked: list[int] = []

    def count(ask: Ask) -> None:
        asked.append(ask.request.round if isinstance(ask.request, TrainRequest) else 0)

    run_id = new_run(runtime, rounds=1)
    with pytest.raises(RunFailedError, match="Only 1 of 2"):
        conduct(runtime, run_id, MemoryFleet({1: SITES[1], 2: count}), flower_run_id="7", breath_seconds=0)
    assert asked == [1, 1]
    run_id = new_run(runtime, rounds=1)
    no = Refusal(code="policy_refused", reason="Not now.").model_dump_json()
    fleet = MemoryFleet({1: SITES[1], 2: says(2, no)})
    with pytest.raises(RunFailedError, match="Only 1 of 2"):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    assert len(fleet.asked) == 2
