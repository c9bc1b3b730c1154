"""A whole network on this machine, as the demonstration runs it: real servers, nodes, trainers, and nobody to help.

What ends is started again by what would do so in a hospital or at the centre: the node's agent, or (for servers and
agents themselves) the launcher in the place of an init system.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from client_node.datasets.synthetic import make_synthetic
from deploy.demo.commands import Command
from deploy.demo.hospital import DemoHospital
from deploy.demo.loop import Loop
from deploy.demo.partition import assign, read_labels
from deploy.demo.people import Person
from deploy.demo.platform import Platform
from deploy.demo.smears import set_aside
from deploy.demo.stages import join_hospitals, start_nodes
from server.accounts.schemas import COMMAND_LINE
from server.db.session import Database
from server.federation import service, steering
from server.federation.recipe import Value
from server.federation.schemas import RoundView, RunPlan, RunView
from server.settings import load_settings
from shared.processes import Service, Supervisor, free_port

Victim = Callable[[], list[psutil.Process]]
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


@dataclass
class Network:
    """The running network and its one run."""

    platform: Platform
    hospitals: list[DemoHospital]
    database: Database
    run_id: str = ""
    said: list[str] = field(default_factory=list)

    def launch(self, rounds: int) -> None:
        """Launch a run in which both hospitals must take part in every round."""
        recipe: dict[str, Value] = {"views": 1, "head_epochs": 0, "input_size": 32, "batch_size": 64}
        plan = RunPlan(rounds=rounds, local_epochs=1, min_sites=2, round_deadline_seconds=300, recipe=recipe)
        with self.database.session() as session:
            self.run_id = service.start_run(session, COMMAND_LINE, plan)

    def view(self) -> RunView:
        """Return the run as it stands."""
        with self.database.session(read_only=True) as session:
            return service.run_view(session, COMMAND_LINE, self.run_id)

    def agent_log(self, hospital: str) -> list[str]:
        """Return what a hospital's agent said of the processes that it looks after."""
        try:
            lines = self.service(hospital).log_path.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [_COLOUR.sub("", line) for line in lines if "process." in line]

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Return after how many seconds ``condition`` held; fail where the run ends before."""
        begin = time.monotonic()
        while not condition():
            view = self.view()
            log = "\n".join(f"{line.at:%H:%M:%S} {line.text}" for line in view.events[-12:])
            assert not view.state.over, f"{what}: the run is {view.state}: {view.problem}\n{log}"
            assert time.monotonic() - begin < seconds, f"{what} did not happen within {seconds:.0f} s\n{log}"
            time.sleep(0.2)
        return time.monotonic() - begin

    def service(self, name: str) -> Service:
        """Return a service of the launcher by its name."""
        return next(one for one in self.platform.supervisor.services if one.name == name)

    def find(self, service: str, words: str) -> list[psutil.Process]:
        """Return the processes below a service whose command line holds ``words``."""
        found = []
        for process in self.service(service).processes():
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found


def whole_rounds(view: RunView) -> list[RoundView]:
    """Return the rounds that ended with both hospitals."""
    return [row for row in view.round_views if row.ended_at and row.replied == 2]


@contextmanager
def network(work: Path) -> Iterator[Network]:
    """Start a network of two hospitals in ``work``."""
    data = work / "synthetic"
    make_synthetic(data, sites=2, fields_per_site=12, cells_per_field=4, gallery_cells_per_site=160)
    partition = assign(read_labels(data), 2)
    for part in partition:
        set_aside(part, data)
    said: list[str] = []
    with Supervisor() as supervisor:
        platform = Platform(work, supervisor, said.append, free_port(), synthetic=True)
        node = Command("client_node.cli", platform.env)
        members = [DemoHospital(part, work / "nodes" / part.id, node) for part in partition]
        platform.start()
        login = platform.login("coordinator")
        loop = Loop(platform, members)
        with Person(platform.url, username=login.username, password=login.password) as coordinator:
            join_hospitals(loop, coordinator, data)
            start_nodes(loop, coordinator)
        database = Database(load_settings(platform.home).effective_database_url)
        over = threading.Event()
        keeper = threading.Thread(target=_keep, args=(platform, over))
        keeper.start()
        try:
            yield Network(platform, members, database, said=said)
        finally:
            over.set()
            keeper.join()
            database.dispose()


def _keep(platform: Platform, over: threading.Event) -> None:
    while not over.wait(1.0):
        platform.keep()


def stop(net: Network) -> None:
    """End the run, whatever it does."""
    if net.view().state.active:
        with net.database.session() as session:
            service.request_stop(session, COMMAND_LINE, net.run_id)


def resume(net: Network) -> None:
    """Let the run go on."""
    with net.database.session() as session:
        steering.resume(session, COMMAND_LINE, net.run_id)
