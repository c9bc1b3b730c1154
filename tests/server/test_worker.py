"""Tests of the worker over a real broker: a row becomes work, and a killed worker loses nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from server.db.session import Database
from server.models import OutboxEntry
from server.outbox import service as outbox
from server.settings import HOME_VARIABLE, ServerSettings, load_settings
from server.setup import initialise
from shared.processes import Service, Supervisor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def centre(tmp_path: Path, broker_url: str) -> ServerSettings:
    """A centre's folder that names the real broker."""
    initialise(ServerSettings(home=tmp_path / "centre", broker_url=SecretStr(broker_url)))
    return load_settings(tmp_path / "centre")


@pytest.fixture
def database(centre: ServerSettings) -> Iterator[Database]:
    made = Database(centre.effective_database_url)
    yield made
    made.dispose()


@pytest.fixture
def processes() -> Iterator[Supervisor]:
    with Supervisor() as started:
        yield started


def celery(centre: ServerSettings, role: str, tmp_path: Path, *, number: int = 1) -> Service:
    return Service(
        f"{role} {number}",
        [sys.executable, "-m", "celery", "-A", "tests.server.slow_worker:celery_app", role, "--loglevel", "INFO"],
        env=os.environ | {HOME_VARIABLE: str(centre.home), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        log_path=tmp_path / f"{role}-{number}.log",
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)


def is_done(database: Database, entry_id: int) -> bool:
    with database.session(read_only=True) as session:
        return session.get_one(OutboxEntry, entry_id).done_at is not None


def add(database: Database, folder: Path) -> int:
    with database.session() as session:
        return outbox.add(session, "test.slow", {"folder": str(folder)}).id or 0


def test_row_is_carried_out_and_a_killed_workers_row_after_restart(
    centre: ServerSettings, database: Database, processes: Supervisor, tmp_path: Path
) -> None:
    processes.start(celery(centre, "beat", tmp_path))
    worker = celery(centre, "worker", tmp_path)
    processes.start(worker)

    quick = tmp_path / "quick"
    quick.mkdir()
    (quick / "go").touch()
    first = add(database, quick)
    wait_for(lambda: is_done(database, first))
    assert (quick / "finished").read_text() == "finished\n"

    slow = tmp_path / "slow"
    slow.mkdir()
    second = add(database, slow)
    wait_for((slow / "started").exists)
    assert worker.pid is not None
    os.killpg(worker.pid, signal.SIGKILL)
    worker.stop()
    (slow / "go").touch()
    assert not is_done(database, second)

    processes.start(celery(centre, "worker", tmp_path, number=2))
    wait_for(lambda: is_done(database, second))
    assert (slow / "started").read_text() == "started\n" * 2
    assert (slow / "finished").read_text() == "finished\n"


def test_worker_without_a_folder_says_so_in_one_place(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != HOME_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "server.worker", "worker"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert HOME_VARIABLE in done.stderr
