"""A real centre for the bench: an object store, a database and the portal, each in a process of its own."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import httpx
from pydantic import SecretStr

from deploy.services.object_store import start_object_store
from server.accounts import passwords
from server.accounts.roles import Role
from server.runtime import build_runtime
from server.settings import ServerSettings, load_settings
from server.setup import initialise
from shared.processes import LOOPBACK, Service, Supervisor, free_port
from shared.storage import MemoryStore
from tests.bench.model.say import say
from tests.factories import PASSWORD, Centre
from tests.portal.factories import Network, add_hospital
from tests.postgres import postgres

ROOT: Final = Path(__file__).resolve().parents[3]
Kind = Literal["SQLite", "PostgreSQL"]


@dataclass(frozen=True)
class Served:
    """A centre with its portal's address."""

    network: Network
    address: str


@contextmanager
def centre(logs: Path, kind: Kind = "SQLite", *, readers: int = 1, processes: int = 1) -> Iterator[Served]:
    """Start a centre with a hospital and so many readers (``reader-0``, …); all of it ends with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hematovision-bench-")))
        supervisor = stack.enter_context(Supervisor())
        say(f"a centre on {kind}")
        store = start_object_store(folder, supervisor)
        url = stack.enter_context(postgres()) if kind == "PostgreSQL" else ""
        home = folder / "centre"
        settings = ServerSettings(
            home=home,
            demo=True,
            database_url=SecretStr(url),
            store_endpoint=f"http://{store.endpoint}",
            store_access_key=store.access_key,
            store_secret_key=SecretStr(store.secret_key),
            public_url=f"https://{LOOPBACK}:1",
        )
        initialise(settings)
        runtime = build_runtime(load_settings(home))
        stack.callback(runtime.database.dispose)
        # The factories of tests say that they have a store in memory; they put and get, as any store can.
        made = Centre(runtime, cast("MemoryStore", runtime.store))
        names = [f"reader-{number}" for number in range(readers)]
        full = passwords.hash_password(PASSWORD)  # what a sign-in costs is measured
        people = {
            name: made.add_person(name, Role.HEMATOLOGIST, name=f"Dr. Reader {name[7:]}", password_hash=full)
            for name in names
        }
        network = Network(made, people)
        add_hospital(network, "a")
        port = free_port()
        yield_address = f"http://{LOOPBACK}:{port}"
        supervisor.start(
            _portal(home, port, processes, logs / f"portal-{kind.lower()}.log"),
            lambda: _answers(f"{yield_address}/healthz"),
            timeout=90,
        )
        yield Served(network, yield_address)


def _portal(home: Path, port: int, processes: int, log: Path) -> Service:
    uvicorn = ("uvicorn", "portal.main:create_app", "--factory", "--host", LOOPBACK, "--port", str(port))
    # Five seconds, the default, are a reader's pause: a connection that ends as a request leaves is an error to see.
    quiet = ("--no-access-log", "--no-server-header", "--timeout-keep-alive", "75")
    argv = [sys.executable, "-m", *uvicorn, *quiet, "--workers", str(processes)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HEMATOVISION_SERVER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return Service("portal", argv, env=env, cwd=home, log_path=log)


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, timeout=2).status_code == 200
    return False
