"""Fixtures for every test, and three rules: servers are marked, only loopback is reached, nothing is left."""

import ctypes
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog
from pytest_socket import socket_allow_hosts

from tests.servers import broker_url, juicefs_gateway, leftover_children, object_store, supervisor

__all__ = ["broker_url", "juicefs_gateway", "object_store", "supervisor"]

# Hypothesis keeps what it learns of our constants, below the working folder if not told otherwise.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "hematovision-hypothesis"))

# As products log: without the locals of a traceback. To draw those of one error in a page takes 15 seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

_SERVER_FIXTURES = {"broker_url", "juicefs_gateway", "object_store"}
LONGEST = (
    "tests/e2e/test_loop.py",
    "tests/chaos/test_flower.py",
    "tests/e2e/test_secure_aggregation.py",
    "tests/browser/test_axe.py",
    "tests/deploy/simulate/test_cli.py",
)
"""Files whose tests come first, so that no worker is left with one of them when the other has nothing more to do."""
_LOOPBACK = ["127.0.0.1", "::1"]
_PR_SET_CHILD_SUBREAPER = 36


def real_smears() -> Path | None:
    """The folder of real smears, if this machine has it."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HEMATOVISION_DATA", beside))
    return folder.resolve() if (folder / "labels.csv").is_file() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a server, skip with a reason what needs smears where there are none, put the longest first."""
    items.sort(key=_turn)
    no_data = pytest.mark.skip(reason="no real smears here: set HEMATOVISION_DATA to a folder with labels.csv")
    for item in items:
        if _SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)
        if item.get_closest_marker("data") and real_smears() is None:
            item.add_marker(no_data)


def _turn(item: pytest.Item) -> int:
    name = item.path.relative_to(item.config.rootpath).as_posix()
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_runtest_setup() -> None:
    """Let a test reach this machine and nothing else."""
    socket_allow_hosts(_LOOPBACK, allow_unix_socket=True)


@pytest.fixture(scope="session")
def smears() -> Path:
    """The folder of real smears with its ``labels.csv``; use with ``@pytest.mark.data``."""
    folder = real_smears()
    if folder is None:
        pytest.skip("no real smears here: set HEMATOVISION_DATA to a folder with labels.csv")
    return folder


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands set up logging for their process: no later test in this process must log as they wanted."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configured = structlog.get_config() if structlog.is_configured() else None
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    if configured is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**configured)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Fail the session that leaves a process behind, daemons too: as a subreaper we inherit them.

    Being the first fixture of the session it ends last, in each xdist worker on its own.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    _, left = psutil.wait_procs(leftover_children(), timeout=3)
    commands = [f"{process.pid} {' '.join(process.cmdline())[:200]}" for process in left if process.is_running()]
    for process in left:
        process.kill()
    assert not commands, "the tests left processes running:\n" + "\n".join(commands)
