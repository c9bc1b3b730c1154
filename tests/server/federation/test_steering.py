"""Runs that are paused, resumed, cloned, or whose process died."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from safetensors.numpy import load
from sqlmodel import Session, select

import server.audit.service as audit
from server.accounts.roles import Role
from server.federation import checkpoints, repository, service, steering
from server.federation.book import RunBook, SupersededError
from server.federation.rounds import conduct
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from server.federation.strategies.registry import StrategyName
from server.models import OutboxEntry, Run
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, ForbiddenError, RunFailedError, ServiceUnavailableError
from shared.contracts.ontology import CellClass
from shared.storage import MemoryStore
from tests.server.federation.fleet import EVALUATION, MemoryFleet, new_run, silent, trains
from tests.server.federation.world import COORDINATOR, census, new_centre, node_of, person

SITES = {1: trains(1, step=1.0), 2: trains(2, step=1.0)}


class StoreAway(MemoryStore):
    """A store whose server is away for what matters while ``away``."""

    away = False

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.away:
            raise ServiceUnavailableError("The object store does not answer.")
        super().put(key, data, if_absent=if_absent)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with new_centre(tmp_path, store=StoreAway()) as centre:
        yield centre


def _view(runtime: Runtime, run_id: str) -> RunView:
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def _ask(runtime: Runtime, what: Callable[[Session], object]) -> None:
    with runtime.database.session() as session:
        what(session)


def _conduct(runtime: Runtime, run_id: str, flower_run_id: str, before: Callable[[str], None] | None = None) -> None:
    fleet = MemoryFleet(SITES) if before is None else MemoryFleet(SITES, before=before)
    conduct(runtime, run_id, fleet, flower_run_id=flower_run_id, breath_seconds=0)


def _launches(session: Session) -> list[OutboxEntry]:
    return list(session.exec(select(OutboxEntry).where(OutboxEntry.kind == "federation.launch")).all())


def test_pause_lets_the_round_end_and_resume_goes_on_after_it(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)

    def pause(group: str) -> None:
        if group == "1":
            _ask(runtime, lambda session: steering.request_pause(session, COORDINATOR, run_id))

    _conduct(runtime, run_id, "7", pause)
    view = _view(runtime, run_id)
    assert (view.state, view.rounds_done, view.pause_requested, view.ended_at) == (RunState.PAUSED, 1, False, None)
    assert view.events[-1].text == "Paused after 1 of 2 rounds"

    _ask(runtime, lambda session: steering.resume(session, COORDINATOR, run_id))
    with runtime.database.session(read_only=True) as session:
        run = session.get_one(Run, run_id)
        assert (run.state, run.flower_run_id, run.past_flower_runs) == (RunState.QUEUED, None, ["7"])
        assert [entry.payload for entry in _launches(session)] == [{"run_id": run_id}]
        assert {entry.action for entry in audit.search(session, COORDINATOR, f"run:{run_id}")} == {
            "federation.pause",
            "federation.resume",
        }
    with pytest.raises(RunFailedError, match="No hospital evaluated"):
        _conduct(runtime, run_id, "8")
    assert float(load(checkpoints.load(runtime.store, run_id, 2))["w"][0, 0]) == 2.0
    lines = [event.text for event in _view(runtime, run_id).events if event.text.startswith("Round 1")]
    assert [line.split()[2] for line in lines] == ["starts", "ends:"]


def test_pause_in_the_last_round_leaves_the_candidate_unevaluated(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1)

    def pause(_group: str) -> None:
        _ask(runtime, lambda session: steering.request_pause(session, COORDINATOR, run_id))

    _conduct(runtime, run_id, "7", pause)
    assert _view(runtime, run_id).state is RunState.PAUSED


def test_a_stop_goes_before_a_pause(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1)
    book = RunBook(runtime.database, run_id)
    book.begin("7")
    _ask(runtime, lambda session: steering.request_pause(session, COORDINATOR, run_id))
    _ask(runtime, lambda session: service.request_stop(session, COORDINATOR, run_id))
    assert not book.paused(1)
    book.fail("The run was stopped.")
    assert _view(runtime, run_id).state is RunState.STOPPED


def test_a_paused_run_blocks_no_other_and_can_be_stopped(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    with runtime.database.session() as session:
        steering.pause(session, session.get_one(Run, run_id), "Paused")
        service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
        other = service.start_run(session, COORDINATOR, RunPlan())
        with pytest.raises(ConflictError, match="under way"):
            steering.resume(session, COORDINATOR, run_id)
        service.request_stop(session, COORDINATOR, run_id)
    assert _view(runtime, run_id).state is RunState.STOPPED
    assert _view(runtime, other).state is RunState.QUEUED


def test_the_flower_run_before_writes_nothing_once_another_carries_the_run(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)
    old = RunBook(runtime.database, run_id)
    old.begin("7")
    _ask(runtime, lambda session: steering.recover(session, run_id, "7", "It died."))
    with pytest.raises(ConflictError):  # nor may it begin anew
        RunBook(runtime.database, run_id).begin("7")
    new = RunBook(runtime.database, run_id)
    new.begin("8")
    assert old.stop_requested()
    assert not new.stop_requested()
    with pytest.raises(SupersededError):
        old.begin_round(1, ["north"], 1)
    old.fail("too late")
    old.broken("too late")
    assert (_view(runtime, run_id).state, _view(runtime, run_id).round_views) == (RunState.RUNNING, [])


def test_a_server_that_is_away_does_not_end_the_run(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)
    store = runtime.store
    assert isinstance(store, StoreAway)

    def leave(group: str) -> None:
        store.away = group == "2"

    with pytest.raises(ServiceUnavailableError):
        _conduct(runtime, run_id, "7", leave)
    store.away = False
    view = _view(runtime, run_id)
    assert (view.state, view.problem, view.rounds_done) == (RunState.QUEUED, None, 1)
    assert view.events[-1].text == "The object store does not answer. Resumed by itself (1 of 3) in 5 s"
    with pytest.raises(RunFailedError, match="No hospital evaluated"):
        _conduct(runtime, run_id, "8")
    assert float(load(checkpoints.load(runtime.store, run_id, 2))["w"][0, 0]) == 2.0


def test_a_run_is_resumed_three_times_without_a_round_and_then_failed(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    for number in range(4):
        RunBook(runtime.database, run_id).begin(str(number))
        with runtime.database.session() as session:
            steering.recover(session, run_id, str(number), "It died.")
    with runtime.database.session(read_only=True) as session:
        waits = [round((entry.not_before - entry.created_at) / timedelta(seconds=1)) for entry in _launches(session)]
    view = _view(runtime, run_id)
    assert waits == [5, 15, 45]
    assert view.state is RunState.FAILED
    assert view.problem == "It died. It was resumed 3 times without a whole round; look into the logs."


def test_a_whole_round_gives_the_tries_back(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)
    with runtime.database.session() as session:
        session.get_one(Run, run_id).resumes = 3

    def die(group: str) -> None:
        if group == "2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _conduct(runtime, run_id, "7", die)
    _ask(runtime, lambda session: steering.recover(session, run_id, "7", "It died."))
    assert _view(runtime, run_id).state is RunState.QUEUED


def test_a_round_that_failed_gives_no_tries_back(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1)
    with runtime.database.session() as session:
        session.get_one(Run, run_id).resumes = 3
    asked: list[str] = []

    def die(group: str) -> None:
        asked.append(group)
        if len(asked) == 2:
            raise KeyboardInterrupt

    fleet = MemoryFleet({1: SITES[1], 2: silent}, before=die)
    with pytest.raises(KeyboardInterrupt):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    _ask(runtime, lambda session: steering.recover(session, run_id, "7", "It died."))
    assert _view(runtime, run_id).state is RunState.FAILED


@pytest.mark.parametrize(("asked", "state"), [("stop", RunState.STOPPED), ("pause", RunState.PAUSED)])
def test_a_run_that_dies_when_it_was_to_end_is_not_resumed(runtime: Runtime, asked: str, state: RunState) -> None:
    run_id = new_run(runtime)
    RunBook(runtime.database, run_id).begin("7")
    with runtime.database.session() as session:
        action = service.request_stop if asked == "stop" else steering.request_pause
        action(session, COORDINATOR, run_id)
        steering.recover(session, run_id, "7", "It died.")
        assert not _launches(session)
    assert _view(runtime, run_id).state is state


def test_the_death_of_an_earlier_flower_run_is_nobodys_business(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    RunBook(runtime.database, run_id).begin("8")
    _ask(runtime, lambda session: steering.recover(session, run_id, "7", "It died."))
    assert _view(runtime, run_id).state is RunState.RUNNING


def test_a_round_that_failed_is_played_again_by_a_resumed_run(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2)
    sites = dict(SITES)
    fleet = MemoryFleet(sites, before=lambda group: sites.update({2: silent}) if group == "2" else None)
    with pytest.raises(RunFailedError, match="Only 1 of 2"):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    _ask(runtime, lambda session: steering.resume(session, COORDINATOR, run_id))
    view = _view(runtime, run_id)
    assert (view.state, view.problem, view.ended_at) == (RunState.QUEUED, None, None)
    with pytest.raises(RunFailedError, match="No hospital evaluated"):
        _conduct(runtime, run_id, "8")
    view = _view(runtime, run_id)
    assert [(row.round, row.replied) for row in view.round_views] == [(1, 2), (2, 2)]
    assert "Resumed after round 1" in [event.text for event in view.events]


def test_a_run_that_evaluates_is_not_paused_any_more_and_forgets_an_evaluation_before(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    for number in ("7", "8"):
        book = RunBook(runtime.database, run_id)
        book.begin(number)
        book.evaluating()
        assert (_view(runtime, run_id).per_site, _view(runtime, run_id).after) == ({}, None)
        book.evaluated("north", EVALUATION)
        assert _view(runtime, run_id).after is not None
        with runtime.database.session() as session:
            with pytest.raises(ConflictError, match="evaluating"):
                steering.request_pause(session, COORDINATOR, run_id)
            steering.recover(session, run_id, number, "It died.")


def test_only_what_rests_can_be_resumed_and_only_by_coordinators(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    with runtime.database.session() as session:
        with pytest.raises(ForbiddenError):
            steering.resume(session, person(Role.AUDITOR), run_id)
        with pytest.raises(ConflictError, match="queued"):
            steering.resume(session, COORDINATOR, run_id)
        session.get_one(Run, run_id).state = RunState.COMPLETED
        with pytest.raises(ConflictError, match="completed"):
            steering.resume(session, COORDINATOR, run_id)
        with pytest.raises(ConflictError, match="nothing to pause"):
            steering.request_pause(session, COORDINATOR, run_id)


def test_a_clone_has_the_plan_and_the_classes_of_its_model(runtime: Runtime) -> None:
    plan = RunPlan(
        rounds=4,
        recipe={"batch_size": 8, "ema": 0.5},
        strategy=StrategyName.FEDADAM,
        strategy_parameters={"tau": 0.01},
        min_sites=1,
        round_deadline_seconds=99,
    )
    with runtime.database.session() as session:
        service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
        first = service.start_run(session, COORDINATOR, plan)
        service.fail(session, first, "whatever")
        service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30, basophil=90))
        second = service.start_run(session, COORDINATOR, plan)
        service.fail(session, second, "whatever")
        third = steering.clone(session, COORDINATOR, first)
        rows = [repository.get(session, key) for key in (first, third)]
    one, other = (
        row.model_dump(exclude={"id", "state", "created_at", "ended_at", "problem", "plan", "imported"})
        for row in rows
        if row
    )
    assert one == other
    assert _view(runtime, second).classes[-1] is CellClass.BASOPHIL
    assert _view(runtime, third).events[-1].text == f"By the plan of run {first[:8]}"


def test_a_run_from_before_plans_were_kept_can_be_cloned(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=5)
    with runtime.database.session() as session:
        session.get_one(Run, run_id).round_deadline_seconds = 90
        plan = steering.plan_of(session, COORDINATOR, run_id)
    assert (plan.rounds, plan.strategy, plan.round_deadline_seconds) == (5, StrategyName.FEDAVG, 90)
    assert plan.classes == [CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE]
