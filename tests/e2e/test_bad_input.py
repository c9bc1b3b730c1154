"""Kits, approval and ports gone wrong: both command lines as people call them, against a real centre on a socket."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_node.cases.ledger import Ledger
from client_node.home import HOME_VARIABLE as NODE_HOME
from client_node.home import NodeHome
from client_node.status import node_status
from server.settings import HOME_VARIABLE as SERVER_HOME
from shared.contracts.errors import ExitCode
from shared.processes import LOOPBACK, Service, Supervisor, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.servers]

ROOT = Path(__file__).parents[2]
SERVER, NODE, DEMO = "server.cli", "client_node.cli", "deploy.demo.cli"


def environment() -> dict[str, str]:
    """Return an environment that names no home."""
    kept = {key: value for key, value in os.environ.items() if key not in {NODE_HOME, SERVER_HOME}}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def call(module: str, *arguments: object, days_ago: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, if asked with a clock that is ``days_ago`` behind."""
    started = ["-m", module]
    if days_ago:
        then = f"datetime.now(UTC) - timedelta(days={days_ago})"
        lines = ["import sys, time_machine", "from datetime import UTC, datetime, timedelta"]
        lines += [f"from {module} import main", f"with time_machine.travel({then}): sys.exit(main())"]
        started = ["-c", "\n".join(lines)]
    argv = [sys.executable, *started, *map(str, arguments)]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def said(done: subprocess.CompletedProcess[str]) -> Any:  # Any: JSON
    """Return the document of a command that worked."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], status: ExitCode) -> str:
    """Return the one line of a command that was refused with ``status``."""
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@dataclass
class Centre:
    """A centre that is being served, and its command line."""

    home: Path
    port: int

    @classmethod
    def made(cls, home: Path, port: int) -> "Centre":
        """Make a centre whose kits name ``port``."""
        said(call(SERVER, "init", "--home", home, "--public-url", f"https://{LOOPBACK}:{port}", "--json"))
        return cls(home, port)

    def kit(self, folder: Path, hospital: str = "st-anna", *, days_ago: int = 0) -> Path:
        """Make a kit for a hospital."""
        out = folder / f"{hospital}-{len(list(folder.iterdir()))}.json"
        options = ["--name", "Saint Anna", "--out", out, "--home", self.home, "--json"]
        said(call(SERVER, "hospital", "enrol", hospital, *options, days_ago=days_ago))
        return out

    def approve(self, node: dict[str, str]) -> None:
        """Approve a node that has read out its fingerprint."""
        options = ["--fingerprint", node["fingerprint"], "--home", self.home, "--json"]
        assert said(call(SERVER, "hospital", "approve", node["node_id"], *options))["state"] == "approved"

    def answers(self) -> bool:
        """Whether the centre is being served."""
        try:
            # The nodes of these tests check the certificate; this only waits.
            return httpx.get(f"https://{LOOPBACK}:{self.port}/healthz", verify=False).is_success  # noqa: S501
        except httpx.ConnectError:
            return False


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    folder = tmp_path_factory.mktemp("centre")
    made = Centre.made(folder / "home", free_port())
    with served(made, folder):
        yield made


def init(home: Path, kit: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return call(NODE, "init", "--home", home, "--kit", kit, *options, "--json")


@contextmanager
def served(centre: Centre, folder: Path) -> Iterator[None]:
    """Serve the node API while the block runs."""
    argv = [sys.executable, "-m", SERVER, "serve", "--home", str(centre.home), "--port", str(centre.port)]
    with Supervisor() as supervisor:
        service = Service("node api", argv, env=environment(), cwd=folder, log_path=folder / "api.log")
        supervisor.start(service, centre.answers, timeout=60)
        yield


@contextmanager
def agent(home: Path, folder: Path) -> Iterator[None]:
    """Run a node while the block runs."""
    argv = [sys.executable, "-m", NODE, "run", "--home", str(home)]
    env = environment() | {"HEMATOVISION_NODE_POLL_SECONDS": "0.5"}
    with Supervisor() as supervisor:
        supervisor.start(Service("agent", argv, env=env, cwd=folder, log_path=folder / "agent.log"))
        yield


def attention(home: Path) -> list[str] | None:
    """Return what a running node asks a person to look at; None while it has said nothing."""
    found = node_status(NodeHome(home)).agent
    return list(found.attention) if found is not None else None


def wait(done: Callable[[], bool]) -> None:
    """Wait until ``done``, at most 40 seconds."""
    end = time.monotonic() + 40
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_reused_kit_is_refused_and_a_new_one_works(centre: Centre, tmp_path: Path) -> None:
    kit = centre.kit(tmp_path)
    assert said(init(tmp_path / "first", kit))["state"] == "pending"
    line = refused(init(tmp_path / "second", kit), ExitCode.KIT_USED)
    assert "new" in line
    keys = (tmp_path / "second" / "keys" / "signing.pem").read_bytes()
    assert said(init(tmp_path / "second", centre.kit(tmp_path)))["state"] == "pending"
    assert (tmp_path / "second" / "keys" / "signing.pem").read_bytes() == keys


def test_expired_kit_is_refused_before_anything_is_made_and_a_new_one_works(centre: Centre, tmp_path: Path) -> None:
    home, kit = tmp_path / "home", centre.kit(tmp_path, days_ago=30)
    line = refused(init(home, kit), ExitCode.KIT_EXPIRED)
    assert "expired on" in line
    assert "new one" in line
    assert not home.exists()
    assert said(init(home, centre.kit(tmp_path)))["state"] == "pending"


def test_kit_of_another_server_is_refused_and_the_right_one_works(centre: Centre, tmp_path: Path) -> None:
    other = Centre.made(tmp_path / "other", centre.port)  # its kit names the address where `centre` answers
    home = tmp_path / "home"
    (tmp_path / "kits").mkdir()
    line = refused(init(home, other.kit(tmp_path / "kits")), ExitCode.KIT_OTHER_SERVER)
    assert "kit" in line
    assert said(init(home, centre.kit(tmp_path / "kits")))["state"] == "pending"


def test_changed_kit_is_refused(centre: Centre, tmp_path: Path) -> None:
    kit = centre.kit(tmp_path)
    kit.write_text(json.dumps(json.loads(kit.read_text()) | {"hospital_id": "elsewhere"}))
    assert "ask the coordinator" in refused(init(tmp_path / "home", kit), ExitCode.KIT_INVALID)
    assert not (tmp_path / "home").exists()


def test_unapproved_node_says_so_and_goes_on_once_it_is_approved(centre: Centre, tmp_path: Path) -> None:
    home, kit = tmp_path / "home", centre.kit(tmp_path)
    node = said(init(home, kit, "--mode", "inference"))
    checks = call(NODE, "doctor", "--home", home, "--json")
    (approval,) = [check for check in json.loads(checks.stdout)["checks"] if check["name"] == "approval"]
    assert (approval["level"], "coordinator" in approval["detail"]) == ("failed", True)
    with agent(home, tmp_path):
        wait(lambda: any("approve it" in line for line in attention(home) or ()))
        assert {entry.kind for entry in Ledger(NodeHome(home)).entries()} == {"enrolment"}
        centre.approve(node)
        wait(lambda: attention(home) == [])
    assert said(call(NODE, "status", "--home", home, "--json"))["running"] is False


def test_wrong_fingerprint_does_not_let_a_node_in(centre: Centre, tmp_path: Path) -> None:
    home, kit = tmp_path / "home", centre.kit(tmp_path)
    node = said(init(home, kit))
    options = ["--fingerprint", "-".join(["0000"] * 8), "--home", centre.home]
    done = call(SERVER, "hospital", "approve", node["node_id"], *options)
    assert "fingerprint" in refused(done, ExitCode.CONFLICT)
    assert said(init(home, kit))["state"] == "pending"


def test_centre_that_is_away_is_named_and_init_goes_on_later(tmp_path: Path) -> None:
    away = Centre.made(tmp_path / "away", free_port())
    (tmp_path / "kits").mkdir()
    kit = away.kit(tmp_path / "kits")
    assert "does not answer" in refused(init(tmp_path / "home", kit), ExitCode.SERVICE_UNAVAILABLE)
    with served(away, tmp_path):
        assert said(init(tmp_path / "home", kit))["state"] == "pending"


def test_port_in_use_is_named_by_centre_and_demonstration(centre: Centre, tmp_path: Path) -> None:
    second = call(SERVER, "serve", "--home", centre.home, "--port", str(centre.port))
    assert str(centre.port) in refused(second, ExitCode.PORT_IN_USE)
    demo = call(DEMO, "--work", tmp_path / "work", "--port", str(centre.port))
    assert str(centre.port) in refused(demo, ExitCode.PORT_IN_USE)
    assert not (tmp_path / "work").exists()
    assert centre.answers()
