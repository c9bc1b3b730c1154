"""The agent runs a node: it talks to the centre, keeps its processes alive, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlmodel import select

from client_node.agent import POLL_VARIABLE, poll_seconds
from client_node.duty import Duty
from client_node.home import NodeHome
from client_node.status import agent_runs, node_status
from server.models import Node
from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import ConfigError, ConflictError, ExitCode
from tests.client_node.centre import LiveCentre, live_centre
from tests.client_node.nodes import joined

ROOT = Path(__file__).parents[2]


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[LiveCentre]:
    with live_centre(tmp_path / "server") as made:
        yield made


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "client_node.cli", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), POLL_VARIABLE: "0.3", "OMP_NUM_THREADS": "1"}


@contextmanager
def running(home: NodeHome) -> Iterator[subprocess.Popen[bytes]]:
    with (home.path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command("run", "--home", str(home.path)), env=environment(), stderr=log, stdout=log)
    try:
        yield agent
    finally:
        agent.terminate()
        agent.wait(30)


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state(home: NodeHome, name: str) -> str:
    agent = node_status(home).agent
    return agent.processes[name] if agent else "unknown"


def analyser_of(agent: subprocess.Popen[bytes]) -> psutil.Process | None:
    for child in psutil.Process(agent.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # ended meanwhile, or not yet collected
            if child.cmdline()[1:3] == ["-m", "client_node.analyser"]:
                return child
    return None


@pytest.mark.e2e
def test_agent_reports_restarts_and_ends_everything(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home", mode=NodeMode.INFERENCE)
    with running(home) as agent:
        until(lambda: state(home, "analyser") == "running")
        until(lambda: "analyser" in (node(centre).heartbeat or {}).get("processes", {}))
        second = subprocess.run(
            command("run", "--home", str(home.path)), env=environment(), capture_output=True, text=True, check=False
        )
        assert second.returncode == ExitCode.CONFLICT
        assert "runs already" in second.stderr
        first = analyser_of(agent)
        assert first is not None
        first.kill()
        until(lambda: (now := analyser_of(agent)) is not None and now.pid != first.pid)
        assert node(centre).last_seen_at is not None
        below = psutil.Process(agent.pid).children(recursive=True)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    _, left = psutil.wait_procs(below, timeout=5)
    assert left == []
    assert not agent_runs(home)


@pytest.mark.e2e
def test_killed_agent_leaves_no_process(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home", mode=NodeMode.INFERENCE)
    with running(home) as agent:
        until(lambda: analyser_of(agent) is not None)
        below = psutil.Process(agent.pid).children(recursive=True)
        agent.kill()
        agent.wait(10)
    _, left = psutil.wait_procs(below, timeout=15)
    assert left == []


def node(centre: LiveCentre) -> Node:
    with centre.runtime.database.session(read_only=True) as session:
        found = session.exec(select(Node)).one()
        session.expunge(found)
    return found


def test_failing_duty_goes_on_and_says_why() -> None:
    calls: list[float] = []

    def work() -> None:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ConflictError("not yet")
        if len(calls) == 4:
            raise RuntimeError

    duty = Duty("test", 0.01, work)
    duty.start()
    until(lambda: len(calls) >= 3 and duty.status.last_success_at is not None, seconds=5)
    until(lambda: len(calls) >= 5, seconds=5)
    duty.stop()
    duty.join(time.monotonic() + 5)
    assert duty.status.problem == ""


@pytest.mark.parametrize("text", ["soon", "0", "99999"])
def test_poll_seconds_refuses_nonsense(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(POLL_VARIABLE, text)
    with pytest.raises(ConfigError, match=POLL_VARIABLE):
        poll_seconds()
