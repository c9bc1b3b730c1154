"""The centre's Flower processes: a SuperLink with TLS and node authentication, and the SuperExec that runs ServerApps.

Both listen on loopback only. With ``process`` isolation and a database file a run survives a SuperLink that is killed
and started again. The Control API on the same port asks nobody who they are: in production a proxy puts nothing but the
paths ``/v1/fleet/*`` before the world.
"""

import http.client
import os
import secrets
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.services.programs import program
from shared.crypto.pki import CertPaths, write_private
from shared.processes import LOOPBACK, Service, Supervisor, free_port

_PACKAGE = "flwr==1.41.0"
_POLL_SECONDS = "0.2"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class FlowerAddress:
    """Where the SuperLink listens, and its state."""

    address: str
    """host:port; TLS."""
    database: Path
    ca: Path
    superlink: Service
    superexec: Service


def start_flower(
    home: Path,
    supervisor: Supervisor,
    certificates: CertPaths,
    *,
    server_env: Mapping[str, str],
    logs: Path,
    port: int | None = None,
) -> FlowerAddress:
    """Start SuperLink and SuperExec with their state in ``home`` (the centre's ``S/flower``).

    ``server_env`` is what a ServerApp needs to find the centre's database, store and keys: above all
    ``HEMATOVISION_SERVER_HOME``. Safe to repeat on the same ``home``: state and secret are kept.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = home / "superexec.secret"
    if not secret.exists():
        write_private(secret, secrets.token_bytes(32))
    port = free_port() if port is None else port
    address = f"{LOOPBACK}:{port}"
    database = home / "superlink.sqlite"
    superlink = Service(
        "superlink",
        [
            program("flower-superlink", _PACKAGE),
            "--host", LOOPBACK,
            "--port", str(port),
            "--ssl-certfile", certificates.cert,
            "--ssl-keyfile", certificates.key,
            "--ssl-ca-certfile", certificates.ca,
            "--enable-supernode-auth",
            "--database", database,
            "--disable-runtime-dependency-installation",
            "--isolation", "process",
            "--superexec-auth-secret-file", secret,
        ],
        env=_environment(home / "superlink", {}),
        cwd=home,
        log_path=logs / "superlink.log",
        stop_grace=4,
    )  # fmt: skip
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    supervisor.start(superlink, lambda: _healthy(port, trust), timeout=60)
    database.chmod(0o600)
    superexec = Service(
        "superexec",
        [
            program("flower-superexec", _PACKAGE),
            "--runtime-api-address", address,
            "--root-certificates", certificates.ca,
            "--superexec-auth-secret-file", secret,
        ],
        env=_environment(home / "superexec", server_env),
        cwd=home,
        log_path=logs / "superexec.log",
        stop_grace=4,
    )  # fmt: skip
    supervisor.start(superexec)
    return FlowerAddress(address, database, certificates.ca, superlink, superexec)


def _environment(flwr_home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    flwr_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
        "FLWR_HOME": str(flwr_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_SECONDS,
        "OMP_NUM_THREADS": "1",
        **extra,
    }


def _healthy(port: int, trust: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=2, context=trust)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
