"""The SuperLink's Control API: registers nodes, starts, looks at and stops runs.

The open-source Control API has no authentication, so it is only ever reached over loopback; nodes protect themselves by
accepting nothing but the signed app (see `publish`). These are Flower's internal client classes: the version is pinned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.transport_pb2 import Scalar
from flwr.supercore.control.control_http_client import ControlHttpClient

from shared.contracts.errors import RunFailedError, ServiceUnavailableError


@dataclass(frozen=True, slots=True)
class FlowerNode:
    """A SuperNode as the SuperLink knows it."""

    node_id: int
    public_key: bytes
    """PEM."""
    online: bool


@dataclass(frozen=True, slots=True)
class FlowerRun:
    """How a run stands in Flower's eyes."""

    status: str
    sub_status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether Flower will do nothing more for this run."""
        return self.status == "finished"


_FORGOTTEN = FlowerRun("finished", "unknown", "The SuperLink does not know this run.")


class Control:
    """A connection to the Control API; use `open_control`."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> list[FlowerNode]:
        """Return every registered SuperNode."""
        with _translated():
            answer = self._client.ListNodes(ListNodesRequest())
        return [
            FlowerNode(node.node_id, bytes(node.public_key), node.status == "online")
            for node in answer.nodes_info
            if node.status != "unregistered"
        ]

    def register(self, public_key_pem: bytes, name: str) -> int:
        """Let the SuperNode holding this key's private half connect; return its Flower id."""
        with _translated():
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key_pem, name=name)).node_id)

    def unregister(self, node_id: int) -> None:
        """Refuse this SuperNode from now on."""
        with _translated():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, *, app_id: str, fab_hash: str, config: dict[str, str]) -> int:
        """Start a run of a published app; return Flower's run id."""
        overrides = {key: Scalar(string=value) for key, value in config.items()}
        request = StartRunRequest(app_spec=app_id, fab=Fab(hash_str=fab_hash), override_config=overrides)
        with _translated():
            run_id = int(self._client.StartRun(request).run_id)
        if not run_id:
            raise RunFailedError("Flower did not accept the run; see the SuperLink's log.")
        return run_id

    def run(self, run_id: int) -> FlowerRun:
        """Return how a run stands; one that the SuperLink does not know, whose database is another, has finished."""
        try:
            with _translated():
                answer = self._client.ListRuns(ListRunsRequest(run_id=run_id))
        except RunFailedError as error:
            if not _unknown(error.__cause__):
                raise
            return _FORGOTTEN
        if run_id not in answer.run_dict:
            return _FORGOTTEN
        status = answer.run_dict[run_id].status
        return FlowerRun(status.status, status.sub_status, status.details)

    def stop(self, run_id: int) -> None:
        """Ask Flower to stop a run; harmless where it has ended."""
        with _translated():
            if not self.run(run_id).finished:
                self._client.StopRun(StopRunRequest(run_id=run_id))


@contextmanager
def open_control(address: str, ca_file: Path) -> Iterator[Control]:
    """Connect to the SuperLink at ``host:port``, trusting the certificate authority in ``ca_file``."""
    client = ControlHttpClient.from_server_address(address, False, ca_file.read_bytes(), [])
    try:
        yield Control(client)
    finally:
        client.close()


def _unknown(cause: BaseException | None) -> bool:
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.NOT_FOUND


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise RunFailedError("The SuperLink refused; see its log for the reason.") from error
    except httpx.HTTPError as error:
        raise ServiceUnavailableError("The SuperLink does not answer; check that it runs.") from error


def openssh_to_pem(openssh: str) -> bytes:
    """Return an OpenSSH public key line as the PEM that the SuperLink keeps."""
    key = load_ssh_public_key(openssh.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
