"""One suite for every adapter of the object store port; what passes here can hold cases."""

import hashlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import urllib3

from deploy.services.object_store import StoreAddress
from shared.contracts.errors import (
    ConfigError,
    ConflictError,
    DataInvalidError,
    ForbiddenError,
    HematovisionError,
    NotFoundError,
    ServiceUnavailableError,
)
from shared.processes import free_port
from shared.storage import MemoryStore, ObjectStore, S3Store, self_test

HOUR = timedelta(hours=1)


@dataclass
class Subject:
    """A store under test, and how a stranger uses one of its presigned addresses."""

    store: ObjectStore
    redeem: Callable[[str, str, bytes], bytes]


def over_http(method: str, address: str, data: bytes) -> bytes:
    """Use a presigned address as a node does."""
    response = urllib3.request(method, address, body=data if method == "PUT" else None)
    if response.status == 403:
        raise ForbiddenError("refused")
    assert response.status == 200, response.data
    return response.data


def s3(address: StoreAddress) -> Subject:
    store = S3Store(address.endpoint, address.access_key, address.secret_key, f"test-{uuid.uuid4().hex[:12]}")
    store.ensure_bucket()
    return Subject(store, over_http)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("object_store", marks=pytest.mark.servers, id="seaweedfs"),
        pytest.param("juicefs_gateway", marks=pytest.mark.servers, id="juicefs"),
    ]
)
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "memory":
        memory = MemoryStore()
        return Subject(memory, memory.redeem)
    return s3(request.getfixturevalue(request.param))


@pytest.fixture
def store(subject: Subject) -> ObjectStore:
    return subject.store


@pytest.fixture(params=["memory", pytest.param("object_store", marks=pytest.mark.servers, id="seaweedfs")])
def conditional(request: pytest.FixtureRequest) -> ObjectStore:
    """A store that honours ``If-None-Match``; JuiceFS's gateway does not, and is refused below for it."""
    return MemoryStore() if request.param == "memory" else s3(request.getfixturevalue(request.param)).store


@pytest.mark.parametrize("size", [0, 1, 100_000, 6_000_000])
def test_get_returns_what_was_put(store: ObjectStore, size: int) -> None:
    data = (hashlib.sha256(b"x").digest() * (size // 32 + 1))[:size]
    store.put("cases/a/blobs/field-0.jpg", data)
    assert store.get("cases/a/blobs/field-0.jpg") == data
    info = store.head("cases/a/blobs/field-0.jpg")
    assert info is not None
    assert info.size == size
    assert info.etag
    assert '"' not in info.etag
    assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=5)


def test_get_of_more_than_is_wanted_is_refused(store: ObjectStore) -> None:
    store.put("large", b"x" * 1000)
    assert store.get("large", most=1000) == b"x" * 1000
    with pytest.raises(DataInvalidError):
        store.get("large", most=999)


def test_put_replaces_whole(store: ObjectStore) -> None:
    store.put("a", b"long content")
    first = store.head("a")
    store.put("a", b"short")
    assert store.get("a") == b"short"
    assert first is not None
    assert store.head("a") != first


def test_missing_object(store: ObjectStore) -> None:
    assert store.head("none") is None
    with pytest.raises(NotFoundError):
        store.get("none")
    store.delete("none")


def test_put_if_absent_keeps_the_first(conditional: ObjectStore) -> None:
    conditional.put("m.json", b"first", if_absent=True)
    with pytest.raises(ConflictError):
        conditional.put("m.json", b"second", if_absent=True)
    assert conditional.get("m.json") == b"first"
    conditional.delete("m.json")
    conditional.put("m.json", b"third", if_absent=True)
    assert conditional.get("m.json") == b"third"


def test_put_if_absent_has_one_winner_among_many(conditional: ObjectStore) -> None:
    outcomes: list[bytes | HematovisionError] = []

    def write(data: bytes) -> None:
        try:
            conditional.put("race/m.json", data, if_absent=True)
            outcomes.append(data)
        except HematovisionError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write, args=(f"writer {n}".encode(),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    assert won == [conditional.get("race/m.json")]
    assert {type(outcome) for outcome in outcomes if not isinstance(outcome, bytes)} == {ConflictError}


def test_list_by_prefix_in_order(store: ObjectStore) -> None:
    keys = ["cases/a/1/key.json", "cases/a/1/blobs/b-1", "cases/a/10/key.json", "cases/b/1/key.json", "z"]
    for key in keys:
        store.put(key, b"x")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("cases/a/1/")) == ["cases/a/1/blobs/b-1", "cases/a/1/key.json"]
    assert list(store.list("cases/a/1")) == sorted(key for key in keys if key.startswith("cases/a/1"))
    assert list(store.list("nothing/")) == []


def test_list_more_than_a_page(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1050)]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("many/")) == keys


def test_delete_removes(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    assert store.head("a/b") is None
    assert list(store.list("")) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "ä", "a\n", "x" * 600])
def test_odd_keys_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(DataInvalidError):
        store.put(key, b"x")
    with pytest.raises(DataInvalidError):
        store.presign_put(key, expires=HOUR)


def test_presigned_addresses_put_and_get(subject: Subject) -> None:
    subject.redeem("PUT", subject.store.presign_put("cases/a/key.json", expires=HOUR), b"sealed")
    assert subject.store.get("cases/a/key.json") == b"sealed"
    assert subject.redeem("GET", subject.store.presign_get("cases/a/key.json", expires=HOUR), b"") == b"sealed"


def test_presigned_address_opens_one_object_and_one_method(subject: Subject) -> None:
    subject.store.put("a1", b"one")
    subject.store.put("a2", b"two")
    address = subject.store.presign_get("a1", expires=HOUR)
    with pytest.raises(ForbiddenError):
        subject.redeem("GET", address.replace("/a1?", "/a2?"), b"")
    with pytest.raises(ForbiddenError):
        subject.redeem("PUT", address, b"other")
    assert subject.store.get("a1") == b"one"


def test_self_test_passes_and_leaves_nothing(conditional: ObjectStore) -> None:
    self_test(conditional)
    assert list(conditional.list("")) == []


@pytest.mark.servers
def test_self_test_refuses_the_juicefs_gateway(juicefs_gateway: StoreAddress) -> None:
    store = s3(juicefs_gateway).store
    with pytest.raises(ConfigError, match="If-None-Match"):
        self_test(store)
    assert list(store.list("")) == []


def test_memory_address_expires() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    memory = MemoryStore(clock=lambda: now[0])
    address = memory.presign_put("a", expires=timedelta(minutes=1))
    now[0] += timedelta(minutes=2)
    with pytest.raises(ForbiddenError):
        memory.redeem("PUT", address, b"late")


class Forgetful(MemoryStore):
    """A store as some are: it accepts the condition and ignores it."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put(key, data)


def test_self_test_refuses_a_store_that_ignores_the_condition() -> None:
    store = Forgetful()
    with pytest.raises(ConfigError, match="If-None-Match"):
        self_test(store)
    assert list(store.list("")) == []


@pytest.mark.servers
def test_s3_says_what_is_wrong(object_store: StoreAddress) -> None:
    wrong = S3Store(object_store.endpoint, object_store.access_key, "wrong", "bucket-a")
    with pytest.raises(ConfigError, match="credentials"):
        wrong.get("a")
    no_bucket = S3Store(object_store.endpoint, object_store.access_key, object_store.secret_key, "bucket-none")
    with pytest.raises(ConfigError, match="bucket"):
        no_bucket.get("a")


@pytest.mark.servers
def test_ensure_bucket_twice(object_store: StoreAddress) -> None:
    store = S3Store(object_store.endpoint, object_store.access_key, object_store.secret_key, "bucket-twice")
    store.ensure_bucket()
    store.put("kept", b"x")
    store.ensure_bucket()
    assert store.get("kept") == b"x"


@pytest.mark.servers
def test_s3_without_a_server() -> None:
    store = S3Store(f"127.0.0.1:{free_port()}", "a", "b", "bucket-a")
    with pytest.raises(ServiceUnavailableError):
        store.get("a")
    with pytest.raises(ServiceUnavailableError):
        store.put("a", b"", if_absent=True)
