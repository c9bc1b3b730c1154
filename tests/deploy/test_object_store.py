"""The embedded store keeps its data and credentials from one start to the next, also over a kill."""

from pathlib import Path

import pytest

from deploy.services.object_store import start_object_store
from shared.contracts.errors import ConfigError
from shared.processes import Supervisor
from shared.storage import S3Store


@pytest.mark.servers
def test_store_keeps_acknowledged_objects_over_a_kill(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        first = start_object_store(tmp_path, supervisor)
        store = S3Store(first.endpoint, first.access_key, first.secret_key, "cases")
        store.ensure_bucket()
        for number in range(20):
            store.put(f"a/{number:02}", b"x" * 1000)
        supervisor.services[0].kill()
        supervisor.services.clear()
        second = start_object_store(tmp_path, supervisor)
        assert (second.access_key, second.secret_key) == (first.access_key, first.secret_key)
        store = S3Store(second.endpoint, second.access_key, second.secret_key, "cases")
        assert [store.get(key) for key in store.list("a/")] == [b"x" * 1000] * 20
    assert (tmp_path / "object-store" / "s3.json").stat().st_mode & 0o777 == 0o600
    assert not list(
        Path("/tmp").glob(  # noqa: S108 - where the program puts its sockets
            "seaweedfs-*-" + second.endpoint.rpartition(":")[2] + ".sock"
        )
    )


def test_damaged_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "object-store").mkdir()
    (tmp_path / "object-store" / "s3.json").write_text("{}")
    with pytest.raises(ConfigError, match="credentials"):
        start_object_store(tmp_path, Supervisor())
