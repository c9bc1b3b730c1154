"""Every process of Flower killed with SIGKILL in the middle of a round of one run, with small trainers: it goes on.

The whole network, with real trainers, agents, workers and the portal, is in `test_kill_table`. The variable
``HEMATOVISION_KILL_TABLE`` names a file for what happened at each kill: the table of docs/recovery.md.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import pytest

from client_node.keeper import Keeper
from client_node.supernode import SUPEREXEC, restart_delay
from deploy.services.object_store import StoreAddress
from server.federation import service, tasks
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from shared.contracts.errors import HematovisionError
from tests.chaos.table import LONG, write_down
from tests.chaos.worker import work_off
from tests.e2e.flower_world import Centre, TestHospital, running_centre, trainers, wait_for
from tests.server.federation.world import COORDINATOR, census, node_of

pytestmark = [
    LONG,
    pytest.mark.chaos,
    pytest.mark.servers,
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
]


@dataclass
class World:
    """A centre whose run is under way, and north's SuperNode, which its agent's keeper looks after."""

    centre: Centre
    north: TestHospital
    keeper: Keeper
    run_id: str = ""
    killed: dict[int, float] = field(default_factory=dict)
    """Round → when its victim was killed."""

    def view(self) -> RunView:
        """Return the run as it stands."""
        with self.centre.runtime.database.session(read_only=True) as session:
            return service.run_view(session, COORDINATOR, self.run_id)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return every victim's processes."""
        flower, node = self.centre.flower, self.keeper._service
        below = node.processes() if node is not None else []
        return {
            "relay": _named(below, "flwr-clientapp"),
            "SuperNode": _named(below, "flower-supernode"),
            "SuperNode's SuperExec": _named(below, "flower-superexec"),
            "SuperExec": _named(flower.superexec.processes(), "flower-superexec"),
            "SuperLink": _named(flower.superlink.processes(), "flower-superlink"),
            "ServerApp": _named(flower.superexec.processes(), "flwr-serverapp"),
        }


VICTIMS = ("relay", "SuperNode's SuperExec", "SuperNode", "SuperExec", "SuperLink", "ServerApp")
"""One a round, in this order; a last round follows in peace."""


def _named(processes: list[psutil.Process], words: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory, object_store: StoreAddress) -> Iterator[World]:
    """Play the whole run; what is left to the tests is to look at it."""
    with running_centre(tmp_path_factory.mktemp("chaos"), object_store, {}) as centre:
        north = centre.hospital("north", step=1.0, examples=10)
        south = centre.hospital("south", step=1.0, examples=10)
        tasks.welcome(centre.runtime, {})
        with centre.runtime.database.session() as session:
            for hospital in (north, south):
                service.store_census(session, node_of(hospital.name), census(neutrophil=30, lymphocyte=30))
        begin = time.monotonic()
        keeper = Keeper(
            "supernode",
            lambda: centre.node_service(north),
            ready=lambda: time.monotonic() - begin > 3,
            delay=restart_delay,
            parts=(SUPEREXEC,),
        )
        world = World(centre, north, keeper)
        north.before_reply = lambda: _kill(world)
        ended = threading.Event()
        helpers = [
            threading.Thread(target=_again, args=(ended, 0.5, keeper.tick)),
            threading.Thread(target=_again, args=(ended, 1.0, centre.supervisor.revive)),
            threading.Thread(target=_again, args=(ended, 1.0, lambda: work_off(centre.runtime))),
            threading.Thread(target=_again, args=(ended, 15.0, lambda: tasks.watch(centre.runtime, {}))),
        ]
        with trainers(north, south):
            centre.start_node(south)
            with centre.runtime.database.session() as session:
                plan = RunPlan(rounds=len(VICTIMS) + 1, min_sites=2, round_deadline_seconds=240)
                world.run_id = service.start_run(session, COORDINATOR, plan)
            for helper in helpers:
                helper.start()
            try:
                wait_for(lambda: not world.view().state.active, 1200, "the end of the run")
            finally:
                ended.set()
                for helper in helpers:
                    helper.join()
                keeper.stop()
        _tell(world)
        yield world


def _kill(world: World) -> None:
    """Kill the round's victim, once, while north trains."""
    request = world.north.seen[-1]
    number = request.get("round")
    if not isinstance(number, int) or number > len(VICTIMS) or number in world.killed:
        return
    victims = world.processes()[VICTIMS[number - 1]]
    assert victims, VICTIMS[number - 1]
    world.killed[number] = time.time()
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _again(ended: threading.Event, seconds: float, work: Callable[[], object]) -> None:
    """Do what an agent, an init system or a worker does all the time."""
    while not ended.wait(seconds):
        with suppress(HematovisionError):  # a server that is away is tried again
            work()


def _tell(world: World) -> None:
    view = world.view()
    for number, at in sorted(world.killed.items()):
        row = next((row for row in view.round_views if row.round == number), None)
        ended = row.ended_at.timestamp() if row is not None and row.ended_at else None
        following = world.killed.get(number + 1, float("inf"))
        story = [line.text for line in view.events if at <= line.at.timestamp() < following]
        write_down(
            VICTIMS[number - 1],
            round=number,
            seconds=round(ended - at, 1) if ended else None,
            asked=sum(request.get("round") == number for request in world.north.seen),
            story=story,
        )


def test_the_run_is_completed_with_every_round_whole(over: World) -> None:
    view = over.view()
    story = "\n".join(f"{line.at:%H:%M:%S} {line.text}" for line in view.events)
    assert (view.state, view.problem) == (RunState.COMPLETED, None), story
    assert [(row.round, row.replied) for row in view.round_views] == [(n, 2) for n in range(1, len(VICTIMS) + 2)]
    assert len(over.killed) == len(VICTIMS)


def test_no_round_before_the_killed_one_is_played_again(over: World) -> None:
    asked = [int(str(request["round"])) for request in over.north.seen if request["kind"] == "train"]
    assert asked == sorted(asked)
