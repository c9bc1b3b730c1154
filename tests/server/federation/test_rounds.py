"""A run's rounds over a fleet in memory: refusals, silence, lies, too few hospitals, stopping, resuming."""

import pytest
from safetensors.numpy import load

from server.db.session import Database
from server.federation import checkpoints, repository, service
from server.federation.fleet import Answer
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.states import RunState, SiteState
from server.models import Node
from server.runtime import Runtime
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.errors import ConflictError, HematovisionError, RunFailedError
from shared.contracts.training import Refusal
from tests.server.federation.fleet import MemoryFleet, Site, new_run, says, silent, trains
from tests.server.federation.world import COORDINATOR


def _conduct(runtime: Runtime, run_id: str, fleet: MemoryFleet) -> str:
    """Conduct the run to its bad end and return what the error said."""
    with pytest.raises(HematovisionError) as caught:
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    return caught.value.message


def _view(database: Database, run_id: str) -> RunView:
    with database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def _checkpoint(runtime: Runtime, run_id: str, number: int) -> float:
    return float(load(checkpoints.load(runtime.store, run_id, number))["w"][0, 0])


def test_rounds_average_hospitals_alike_and_each_is_checkpointed(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    fleet = MemoryFleet({1: trains(1, step=1.0, examples=810), 2: trains(2, step=5.0, examples=10, accuracy=0.9)})
    problem = _conduct(runtime, run_id, fleet)
    assert problem.startswith("No hospital evaluated the candidate")
    assert [_checkpoint(runtime, run_id, number) for number in (0, 1, 2)] == pytest.approx([0.0, 3.0, 6.0])
    view = _view(runtime.database, run_id)
    assert (view.state, view.problem, view.rounds_done) == (RunState.FAILED, problem, 2)
    assert [row.accuracy for row in view.round_views] == [pytest.approx(0.7), pytest.approx(0.7)]
    north = view.round_views[0].sites[0]
    assert (north.hospital_id, north.state, north.examples, north.accuracy) == ("north", SiteState.REPLIED, 810, 0.5)
    assert north.bytes_up > 0 < north.bytes_down


@pytest.mark.parametrize(
    ("site", "state", "reason"),
    [
        (
            says(2, Refusal(code="policy_refused", reason="Too few sites.").model_dump_json()),
            "refused",
            "Too few sites.",
        ),
        (says(2, "", problem="secret inner detail"), "refused", "software failed"),
        (lambda _ask: Answer(2, "", b"", problem="gone", offline=True), "refused", "connection was lost"),
        (says(2, "not json"), "refused", "cannot be read"),
        (says(2, "x" * 300_000), "refused", "too long"),
        (trains(2, step=float("nan")), "refused", "not finite"),
        (trains(2, step=1.0, examples=0), "refused", "impossible number"),
        (trains(1, step=1.0), "missing", "deadline"),
        (silent, "missing", "deadline"),
    ],
)
def test_round_goes_on_without_a_site_that_fails(runtime: Runtime, site: Site, state: str, reason: str) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=1)
    _conduct(runtime, run_id, MemoryFleet({1: trains(1, step=1.0), 2: site}))
    view = _view(runtime.database, run_id)
    south = view.round_views[0].sites[1]
    assert (south.hospital_id, south.state) == ("south", SiteState(state))
    assert reason in (south.reason or "")
    assert "secret" not in view.model_dump_json()
    assert (view.round_views[0].sampled, view.round_views[0].replied) == (2, 1)
    assert _checkpoint(runtime, run_id, 1) == 1.0


def test_too_few_updates_end_the_run_and_are_not_averaged(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    problem = _conduct(runtime, run_id, MemoryFleet({1: trains(1, step=1.0), 2: silent}))
    assert problem.startswith("Only 1 of 2 hospitals took part in round 1, 2 are needed")
    view = _view(runtime.database, run_id)
    assert (view.state, view.rounds_done, view.accuracy) == (RunState.FAILED, 0, None)
    [only] = view.round_views
    assert (only.replied, only.whole, only.ended_at is None) == (1, False, False)
    assert runtime.store.head(checkpoints.key(run_id, 1)) is None


def test_nobody_replying_is_a_failednew_run(runtime: Runtime) -> None:
    run_id = new_run(runtime, min_sites=1)
    _conduct(runtime, run_id, MemoryFleet({1: silent, 2: silent}))
    assert _view(runtime.database, run_id).state is RunState.FAILED


def test_too_few_connected_hospitals_end_the_wait(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    assert _conduct(runtime, run_id, MemoryFleet({1: trains(1, step=1.0)})).startswith("1 hospitals are connected")


def test_node_that_is_not_approved_is_never_asked(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        node = session.get(Node, "node-south")
        assert node is not None
        node.state = EnrolmentState.REVOKED
    run_id = new_run(runtime, rounds=1, min_sites=1)
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=9.0), 99: trains(99, step=9.0)})
    _conduct(runtime, run_id, fleet)
    assert {node_id for _, node_id, _ in fleet.asked} == {1}


def test_stop_ends_the_run_between_rounds_and_keeps_its_checkpoints(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=3)

    def stop_in_second(group: str) -> None:
        if group == "2":
            with runtime.database.session() as session:
                service.request_stop(session, COORDINATOR, run_id)

    fleet = MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)}, before=stop_in_second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.federation.attendance._STOP_CHECK_SECONDS", 0.0)
        _conduct(runtime, run_id, fleet)
    view = _view(runtime.database, run_id)
    assert (view.state, view.problem, view.rounds_done) == (RunState.STOPPED, None, 1)
    assert _checkpoint(runtime, run_id, 1) == 1.0


def test_run_that_was_cut_off_resumes_after_its_last_whole_round(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)

    def cut(group: str) -> None:
        if group == "2":
            raise KeyboardInterrupt

    sites = {1: trains(1, step=1.0), 2: trains(2, step=1.0)}
    with pytest.raises(KeyboardInterrupt):
        conduct(runtime, run_id, MemoryFleet(sites, before=cut), flower_run_id="7", breath_seconds=0)
    assert not _view(runtime.database, run_id).state.over
    again = MemoryFleet(sites)
    _conduct(runtime, run_id, again)
    assert [group for group, node_id, _ in again.asked if node_id == 1] == ["2", "evaluate", "evaluate"]
    assert _checkpoint(runtime, run_id, 2) == 2.0
    assert _view(runtime.database, run_id).round_views[1].replied == 2


def test_run_is_carried_by_one_flower_run_only(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    fleet = MemoryFleet({1: silent, 2: silent})
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        assert run is not None
        run.flower_run_id = "6"
    with pytest.raises(ConflictError):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    assert not _view(runtime.database, run_id).state.over
    assert fleet.asked == []


def test_missing_checkpoint_is_said(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    runtime.store.delete(checkpoints.key(run_id, 0))
    with pytest.raises(RunFailedError, match="checkpoint is gone"):
        conduct(runtime, run_id, MemoryFleet({}), flower_run_id="7", breath_seconds=0)
    assert _view(runtime.database, run_id).state is RunState.FAILED
