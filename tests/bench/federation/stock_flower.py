"""Runs the stock app on a SuperLink and three SuperNodes by their defaults: no TLS, no keys, state in memory."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient

from client_node.supernode import flower_environment
from deploy.services.programs import program
from shared.processes import LOOPBACK, Service, Supervisor, free_port, is_listening

APP: Final = Path(__file__).with_name("stock")
_OUTPUT: Final = "HEMATOVISION_STOCK_OUTPUT"
_PACKAGE: Final = "flwr==1.41.0"
_NODES: Final = 3


def stock_rounds(
    work: Path, *, wait_for: Callable[[Callable[[], bool], float, str], None]
) -> list[tuple[float, float]]:
    """Return, for each round, (its seconds, the slowest site's training)."""
    work.mkdir(parents=True, exist_ok=True)
    output, port = work / "rounds.json", free_port()
    address = f"{LOOPBACK}:{port}"
    env = {**flower_environment(work / "flwr"), _OUTPUT: str(output)}
    with Supervisor() as supervisor:
        superlink: list[str | Path] = [
            program("flower-superlink", _PACKAGE), "--insecure", "--host", LOOPBACK, "--port", str(port),
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        supervisor.start(
            Service("stock superlink", superlink, env=env, cwd=work, log_path=work / "superlink.log"),
            lambda: is_listening(port),
            timeout=60,
        )
        for number in range(_NODES):
            node: list[str | Path] = [
                program("flower-supernode", _PACKAGE), "--insecure", "--superlink", address, "--host", LOOPBACK,
                "--port", str(free_port()), "--node-config", f"partition-id={number}",
            ]  # fmt: skip
            supervisor.start(Service(f"stock node {number}", node, env=env, cwd=work, log_path=work / f"{number}.log"))
        _start(address)
        wait_for(output.is_file, 600, "the end of the stock run")
    found: list[tuple[float, float]] = json.loads(output.read_text())
    return found


def _start(address: str) -> None:
    names = ("__init__.py", "client_app.py", "server_app.py")
    files = {"pyproject.toml": (APP / "pyproject.toml").read_bytes()}
    files |= {f"stock/{name}": (APP / name).read_bytes() for name in names}
    fab, _ = build_fab_from_files(files)
    client = ControlHttpClient.from_server_address(address, True, None, [])
    try:
        client.StartRun(StartRunRequest(fab=Fab(hash_str=sha256(fab).hexdigest(), content=fab)))
    finally:
        client.close()
