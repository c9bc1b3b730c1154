"""A centre with a real SuperLink, SuperExec and object store, and hospitals with real SuperNodes and relays.

Only the trainer behind the relay's socket is a small one of the tests: it adds a constant to the head's bias, so that
the average is known and the model stays one. The real trainer has tests of its own.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.supercore.control.control_http_client import ControlHttpClient

from client_node import ipc
from client_node.supernode import supernode_command, trusted_entities
from client_node.training.carried import Carried
from client_node.training.model_store import ModelStore
from deploy.services.flower import FlowerAddress, start_flower
from deploy.services.object_store import StoreAddress
from server.db.migrate import upgrade
from server.models import Hospital
from server.runtime import Runtime, build_runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.training import (
    CalibrationSummary,
    DryRunReply,
    EvaluateReply,
    Reply,
    SiteMetrics,
    TrainReply,
    TrainRequest,
)
from shared.crypto.pki import DemoCA, flower_key, write_private
from shared.processes import LOOPBACK, Service, Supervisor, free_port
from shared.seal import request_digest, seal
from shared.storage import S3Store
from tests.server.federation.world import new_node, node_key

HEAD_BIAS = (2,)
"""Shape of the only tensor with one value a class, in runs of two classes."""
Sealed = tuple[str, str, bytes]
"""An answer on its way: text, seal, tensors."""
METRICS = SiteMetrics(n=10, loss=0.7, accuracy=0.8, macro_f1=0.75)


def evaluation(step: float) -> EvaluateReply:
    """Return what a hospital of the tests says about a candidate."""
    calibration = CalibrationSummary(temperature=1.0 + step / 10, conformal_quantile=0.9)
    return EvaluateReply(candidate=METRICS, current=None, calibration=calibration, seconds=0.1)


@dataclass
class TestHospital:
    """A node's home with keys, and a trainer that answers on its socket."""

    __test__ = False

    name: str
    home: Path
    public_key: str
    step: float
    examples: int
    seen: list[dict[str, object]] = field(default_factory=list)
    models: ModelStore = field(default_factory=ModelStore)
    """What packed tensors are read against."""
    before_reply: Callable[[], None] = field(default=lambda: None)
    on_the_way: Callable[[Sealed], Sealed] = field(default=lambda answer: answer)
    """What happens to an answer once its trainer has sealed it."""

    def answer(self, header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        """Answer as the trainer does: the reply's text, its seal, and tensors."""
        request = json.loads(header["request"])
        self.seen.append(request)
        self.before_reply()
        reply, tensors = self._work(request, body)
        text = reply.model_dump_json()
        signed = seal(node_key(f"node-{self.name}"), request_digest(header["request"], body), text, tensors)
        text, signed, tensors = self.on_the_way((text, signed, tensors))
        return {"reply": text, "seal": signed}, tensors

    def _work(self, request: dict[str, object], body: bytes) -> tuple[Reply, bytes]:
        """Train by adding ``step`` to the head's bias; evaluate with figures of one's own."""
        if request["kind"] == "evaluate":
            return evaluation(self.step), b""
        if request["kind"] == "dry-run":
            return DryRunReply(takes_part=True, examples=self.examples), b""
        carried = Carried(self.models, TrainRequest.model_validate_json(json.dumps(request)), body)
        trained = {
            name: array + np.float16(self.step) if array.shape == HEAD_BIAS else array
            for name, array in carried.read().items()
        }
        reply = TrainReply(
            examples=self.examples, train_loss=0.5, received=METRICS, seconds=0.1, manifest_sha256="0" * 64
        )
        return reply, carried.write(trained)


@dataclass
class Centre:
    """A running centre and how tests reach it."""

    runtime: Runtime
    flower: FlowerAddress
    supervisor: Supervisor
    work: Path

    def hospital(
        self, name: str, *, step: float, examples: int, policy: str = "", approved: bool = True,
        protocol: int | None = None,
    ) -> TestHospital:  # fmt: skip
        """Make a hospital with an approved node that the SuperLink does not know yet, or one that nobody knows.

        ``policy`` are lines of its policy's section ``training``; ``protocol``: what its heartbeat says that it speaks.
        """
        home = self.work / name
        (home / "keys").mkdir(parents=True)
        private, public = flower_key()
        write_private(home / "keys" / "flower", private)
        (home / "keys" / "ca.crt").write_bytes(self.flower.ca.read_bytes())
        trusted = trusted_entities(self.runtime.vault.release_key().public.to_openssh())
        (home / "keys" / "trusted.yaml").write_text(trusted)
        write_private(home / "keys" / "signing.pem", node_key(f"node-{name}").to_pem())
        (home / "policy.toml").write_text(f"[training]\nleast_participants = 1\n{policy}")
        if not approved:
            return TestHospital(name, home, public, step, examples)
        with self.runtime.database.session() as session:
            session.add(Hospital(id=name, name=name.title()))
            session.flush()
            session.add(new_node(name, flower_key=public, protocol=protocol))
        return TestHospital(name, home, public, step, examples)

    def start_node(self, hospital: TestHospital) -> Service:
        """Start the hospital's SuperNode."""
        return self.supervisor.start(self.node_service(hospital))

    def node_service(self, hospital: TestHospital) -> Service:
        """Return the hospital's SuperNode, to be started."""
        command = supernode_command(
            hospital.home, superlink=self.flower.address, hospital_id=hospital.name, port=free_port()
        )
        log = self.work / "logs" / f"{hospital.name}.log"
        return Service(f"supernode {hospital.name}", command.argv, env=command.env, log_path=log)

    def control_client(self) -> ControlHttpClient:
        """Return what anybody on this machine could talk to the SuperLink with."""
        return ControlHttpClient.from_server_address(self.flower.address, False, self.flower.ca.read_bytes(), [])


@contextmanager
def running_centre(work: Path, store: StoreAddress, env: dict[str, str]) -> Iterator[Centre]:
    """Start a centre in ``work``; its servers end with the block."""
    home = work / "centre"
    vault = FileVault.create(home / "keys")
    authority = DemoCA.create(home / "keys" / "ca")
    port = free_port()
    named = {
        "STORE_ENDPOINT": store.endpoint,
        "STORE_ACCESS_KEY": store.access_key,
        "STORE_SECRET_KEY": store.secret_key,
        "STORE_BUCKET": "flower-e2e",
        "SUPERLINK_CONTROL": f"{LOOPBACK}:{port}",
    }
    lines = [f"HEMATOVISION_SERVER_{key}={value}" for key, value in named.items()]
    write_private(home / "server.env", "\n".join(lines).encode())
    settings = ServerSettings(home=home, _env_file=home / "server.env")
    upgrade(settings.effective_database_url)
    runtime = build_runtime(settings)
    assert runtime.vault.server_id == vault.server_id
    assert isinstance(runtime.store, S3Store)
    runtime.store.ensure_bucket()
    with Supervisor() as supervisor:
        flower = start_flower(
            home / "flower",
            supervisor,
            authority.issue_server("superlink", [LOOPBACK], home / "flower" / "tls"),
            server_env={"HEMATOVISION_SERVER_HOME": str(home), **env},
            logs=work / "logs",
            port=port,
        )
        yield Centre(runtime, flower, supervisor, work)
    runtime.database.dispose()


@contextmanager
def trainers(*hospitals: TestHospital) -> Iterator[None]:
    """Answer on every hospital's socket."""
    stops = [ipc.Stop() for _ in hospitals]
    threads = [
        threading.Thread(
            target=ipc.serve, args=(ipc.socket_path(hospital.home, "trainer"), hospital.answer), kwargs={"stop": stop}
        )
        for hospital, stop in zip(hospitals, stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for stop, thread in zip(stops, threads, strict=True):
            stop.set()
            thread.join()
            stop.close()


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once ``condition`` holds; fail the test after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)
