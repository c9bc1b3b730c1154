"""Background work of runs that comes late, or meets a SuperLink that is away or has forgotten a run."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from flwr.proto.control_pb2 import ListRunsRequest, ListRunsResponse

from server.federation import schedule, service, steering, tasks
from server.federation.book import RunBook
from server.federation.schemas import RunView
from server.federation.states import RunState
from server.models import Run
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.errors import ServiceUnavailableError
from shared.crypto.pki import DemoCA
from shared.processes.service import free_port
from shared.storage import MemoryStore
from tests.server.federation.fleet import new_run
from tests.server.federation.world import COORDINATOR, new_database


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    database = new_database()
    home = tmp_path / "centre"
    vault = FileVault.create(home / "keys")
    (home / "flower").mkdir()
    DemoCA.create(home / "keys" / "ca")
    settings = ServerSettings(home=home, superlink_control=f"127.0.0.1:{free_port()}")
    yield Runtime(settings, database, MemoryStore(), vault)
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


class _SuperLink(BaseHTTPRequestHandler):
    """Knows run 8, fails on run 7, forgot all others."""

    def do_POST(self) -> None:
        asked = ListRunsRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        answer = ListRunsResponse()
        answer.run_dict[8].status.status = "running"
        self.send_response({7: 500, 8: 200}.get(asked.run_id, 404))
        self.end_headers()
        self.wfile.write(answer.SerializeToString())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the tests' output clean."""


@contextmanager
def _superlink(runtime: Runtime) -> Iterator[None]:
    """Answer the Control API for as long as the block lasts, under a certificate that the centre trusts."""
    paths = DemoCA.load(runtime.settings.keys / "ca").issue_server(
        "superlink", ["127.0.0.1"], runtime.settings.home / "tls"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.cert, paths.key)
    host, _, port = runtime.settings.superlink_control.partition(":")
    with ThreadingHTTPServer((host, int(port)), _SuperLink) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_watch_looks_after_each_run_whatever_the_superlink_says_of_another(runtime: Runtime) -> None:
    keys = {number: new_run(runtime) for number in (7, 8, 9)}
    for number, run_id in keys.items():
        RunBook(runtime.database, run_id).begin(str(number))
    with _superlink(runtime):
        tasks.watch(runtime, {})
    assert {number: _view(runtime, run_id).state for number, run_id in keys.items()} == {
        7: RunState.RUNNING,
        8: RunState.RUNNING,
        9: RunState.QUEUED,
    }


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")
def test_first_launch_by_a_schedule_waits_for_the_superlink_and_one_by_a_person_tells_at_once(
    runtime: Runtime,
) -> None:
    nightly, launched = new_run(runtime), new_run(runtime)
    with runtime.database.session() as session:
        session.get_one(Run, nightly).created_by = schedule.SCHEDULER.username
    with pytest.raises(ServiceUnavailableError):
        tasks.launch(runtime, {"run_id": nightly})
    tasks.launch(runtime, {"run_id": launched})
    assert _view(runtime, nightly).state is RunState.STARTING
    assert _view(runtime, launched).state is RunState.FAILED
