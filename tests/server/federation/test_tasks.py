"""Background work of runs that comes late, or meets a SuperLink that is away or has forgotten a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.federation import service, steering, tasks
from server.federation.book import RunBook
from server.federation.schemas import RunView
from server.federation.states import RunState
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.storage import MemoryStore
from tests.server.federation.fleet import new_run
from tests.server.federation.world import COORDINATOR, new_database


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    database = new_database()
    home = tmp_path / "centre"
    yield Runtime(ServerSettings(home=home), database, MemoryStore(), FileVault.create(home / "keys"))
    database.dispose()


def _view(runtime: Runtime, run_id: str) -> RunView:
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def test_stop_that_comes_late_leaves_a_resumed_run_alone(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    RunBook(runtime.database, run_id).begin("7")
    with runtime.database.session() as session:
        service.request_stop(session, COORDINATOR, run_id)
        service.fail(session, run_id, "The run was stopped.")
        steering.resume(session, COORDINATOR, run_id)
    tasks.stop(runtime, {"run_id": run_id})
    assert _view(runtime, run_id).state is RunState.QUEUED


def test_stop_ends_a_run_that_waits_for_its_launch(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    with runtime.database.session() as session:
        service.request_stop(session, COORDINATOR, run_id)
    tasks.stop(runtime, {"run_id": run_id})
    assert _view(runtime, run_id).state is RunState.STOPPED
