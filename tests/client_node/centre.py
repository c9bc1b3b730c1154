"""A centre as a node meets it: the real node API on a real socket, over a real object store."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from deploy.services.object_store import StoreAddress
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE, Principal
from server.app import create_node_api
from server.cases import ingest
from server.hospitals import service as hospitals
from server.runtime import Runtime
from shared.contracts.enrolment import Kit
from shared.processes import LOOPBACK
from shared.storage import S3Store
from tests.server.centres import PASSWORD, add_user, make_runtime


@dataclass
class LiveCentre:
    """The centre and what its people do."""

    runtime: Runtime
    url: str

    def kit(self, folder: Path, hospital_id: str = "a") -> Path:
        """Make a kit file."""
        with self.runtime.database.session() as session:
            made: Kit = hospitals.enrol(
                session, self.runtime, actor=COMMAND_LINE, hospital_id=hospital_id, name=f"Hospital {hospital_id}"
            )
        file = folder / f"kit-{hospital_id}-{made.expires_at:%H%M%S%f}.json"
        file.write_text(made.model_dump_json())
        return file

    def approve(self, node_id: str, fingerprint: str) -> None:
        """Approve a node whose fingerprint was read out."""
        with self.runtime.database.session() as session:
            hospitals.approve(session, principal=COMMAND_LINE, node_id=node_id, fingerprint=fingerprint)

    def reject(self, node_id: str) -> None:
        """Turn a node away."""
        with self.runtime.database.session() as session:
            hospitals.reject(session, principal=COMMAND_LINE, node_id=node_id)

    def take_in(self, case_id: str, hospital_id: str = "a") -> None:
        """Do the worker's part of a commit."""
        ingest.ingest(self.runtime, hospital_id=hospital_id, case_id=case_id)

    def reader(self, name: str = "reader") -> Principal:
        """Return a new hematologist."""
        with self.runtime.database.session() as session:
            user_id = add_user(session, name, Role.HEMATOLOGIST)
        return Principal(
            user_id=user_id, username=name, display_name=f"Dr. {name}", role=Role.HEMATOLOGIST, hospital_id=None
        )

    @property
    def password(self) -> str:
        """The reader's password."""
        return PASSWORD


@contextmanager
def live_centre(
    folder: Path, store: StoreAddress | None = None, *, endpoint: str | None = None
) -> Iterator[LiveCentre]:
    """Serve a centre from ``folder``; with ``store``, cases can be uploaded (``endpoint``: as nodes reach it)."""
    folder.mkdir()
    made = make_runtime(folder)
    listener = socket.create_server((LOOPBACK, 0))
    url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    runtime = replace(made, settings=made.settings.model_copy(update={"public_url": url}))
    if store is not None:
        bucket = S3Store(
            endpoint=endpoint or store.endpoint, access_key=store.access_key, secret_key=store.secret_key,
            bucket=_bucket(folder), secure=False, region="us-east-1",
        )  # fmt: skip
        bucket.ensure_bucket()
        runtime = replace(runtime, store=bucket)
    server = uvicorn.Server(uvicorn.Config(create_node_api(runtime), log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    assert server.started
    try:
        yield LiveCentre(runtime, url)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        runtime.database.dispose()


def _bucket(folder: Path) -> str:
    name = f"centre-{folder.parent.name.replace('_', '-').lower()}"
    return name[:60].strip("-")
