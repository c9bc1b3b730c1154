"""Flower's own processes killed in the middle of a round, with small trainers: fast enough to try one by one.

All of them in one run: `test_flower_kills`; the whole network, with real trainers and workers: `test_kill_table`.
"""

import time
from pathlib import Path

import pytest

from deploy.services.object_store import StoreAddress
from server.federation import service, tasks
from server.federation.schemas import RunPlan
from server.federation.states import RunState
from shared.processes import is_listening
from tests.chaos.worker import work_off
from tests.e2e.flower_world import Centre, running_centre, trainers, wait_for
from tests.server.federation.world import COORDINATOR, census, node_of

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.servers,
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
]


def test_run_survives_a_killed_superlink(tmp_path: Path, object_store: StoreAddress) -> None:
    with running_centre(tmp_path, object_store, {}) as centre:
        north = centre.hospital("north", step=1.0, examples=10)
        tasks.welcome(centre.runtime, {})
        kills: list[int] = []

        def kill_once() -> None:
            if not kills:
                kills.append(1)
                centre.flower.superlink.kill()
                centre.flower.superlink.start()
                port = int(centre.flower.address.rpartition(":")[2])
                wait_for(lambda: is_listening(port), 30, "the SuperLink's return")

        north.before_reply = kill_once
        with trainers(north):
            centre.start_node(north)
            with centre.runtime.database.session() as session:
                service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
                plan = RunPlan(rounds=1, min_sites=1, round_deadline_seconds=90)
                run_id = service.start_run(session, COORDINATOR, plan)
            tasks.launch(centre.runtime, {"run_id": run_id})

            def over() -> bool:
                with centre.runtime.database.session(read_only=True) as session:
                    return service.is_over(session, run_id)

            wait_for(over, 180, "the end of the run")
        with centre.runtime.database.session(read_only=True) as session:
            view = service.run_view(session, COORDINATOR, run_id)
        assert kills == [1]
        assert (view.state, view.problem) == (RunState.COMPLETED, None)
        assert view.round_views[0].replied == 1


def test_run_whose_serverapp_was_killed_goes_on_in_another_flower_run(
    tmp_path: Path, object_store: StoreAddress
) -> None:
    with running_centre(tmp_path, object_store, {}) as centre:
        north = centre.hospital("north", step=1.0, examples=10)
        tasks.welcome(centre.runtime, {})
        killed: list[float] = []

        def kill_in_second_round() -> None:
            if len(north.seen) == 2 and not killed:
                killed.append(time.monotonic())
                for process in centre.flower.superexec.processes():
                    if "flwr-serverapp" in " ".join(process.cmdline()):
                        process.kill()

        north.before_reply = kill_in_second_round
        with trainers(north):
            centre.start_node(north)
            with centre.runtime.database.session() as session:
                service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
                plan = RunPlan(rounds=2, min_sites=1, round_deadline_seconds=90)
                run_id = service.start_run(session, COORDINATOR, plan)
            wait_for(lambda: _pump(centre, run_id), 300, "the end of the run")
        with centre.runtime.database.session(read_only=True) as session:
            view = service.run_view(session, COORDINATOR, run_id)
        story = [line.text for line in view.events]
        assert (view.state, view.problem) == (RunState.COMPLETED, None), story
        assert [request["round"] for request in north.seen if request["kind"] == "train"] == [1, 2, 2]
        assert "Resumed after round 1" in story
        assert any("(1 of 3)" in text for text in story)


def _pump(centre: Centre, run_id: str) -> bool:
    """Do what the worker does: look after runs, carry out what is due; return whether the run is over."""
    tasks.watch(centre.runtime, {})
    work_off(centre.runtime)
    with centre.runtime.database.session(read_only=True) as session:
        return service.is_over(session, run_id)
