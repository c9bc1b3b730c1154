"""Tests of the centre on real servers: `init` against an object store, the node API over TLS in its own process."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deploy.services.object_store import StoreAddress
from server.runtime import open_store
from server.settings import HOME_VARIABLE, load_settings
from shared.contracts.errors import ExitCode
from shared.processes import LOOPBACK, Service, Supervisor, free_port
from shared.storage import self_test

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "server.cli"]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != HOME_VARIABLE} | {"PYTHONPATH": str(ROOT)}


def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_init_makes_the_bucket(tmp_path: Path, object_store: StoreAddress) -> None:
    options = ["--home", str(tmp_path / "centre"), "--store-access-key", object_store.access_key]
    where = ["--store-endpoint", f"http://{object_store.endpoint}", "--store-bucket", "made-by-init"]
    made = call("init", *options, *where, "--store-secret-key-stdin", "--demo", stdin=object_store.secret_key)
    assert made.returncode == 0, made.stderr
    self_test(open_store(load_settings(tmp_path / "centre")))


def test_init_with_a_store_that_does_not_answer_leaves_nothing(tmp_path: Path) -> None:
    made = call("init", "--home", str(tmp_path / "centre"), "--store-endpoint", f"http://{LOOPBACK}:1", "--demo")
    assert made.returncode == ExitCode.SERVICE_UNAVAILABLE, made.stderr
    assert not (tmp_path / "centre").exists()


@pytest.mark.servers
def test_serve_answers_over_tls_and_says_when_the_port_is_taken(tmp_path: Path) -> None:
    home, port = tmp_path / "centre", free_port()
    assert call("init", "--home", str(home)).returncode == 0
    trust = ssl.create_default_context(cafile=str(home / "keys" / "ca" / "ca.crt"))

    def identity() -> bool:
        try:
            answer = httpx.get(f"https://{LOOPBACK}:{port}/api/node/v1/server", verify=trust)
        except httpx.ConnectError:
            return False
        return len(answer.json()["server_id"]) == 39

    arguments = ["serve", "--home", str(home), "--port", str(port)]
    with Supervisor() as started:
        service = Service(
            "node api", [*COMMAND, *arguments], env=environment(), cwd=tmp_path, log_path=tmp_path / "api.log"
        )
        started.start(service, identity, timeout=60)
        second = call(*arguments)
        assert second.returncode == ExitCode.PORT_IN_USE
        assert second.stderr.count("\n") == 1
