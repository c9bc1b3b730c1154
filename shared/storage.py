"""The object store port, its S3 adapter (MinIO's client SDK) and a memory version.

Keys are paths such as ``cases/<hospital>/<case>/blobs/field-0.jpg``; no key may be a folder of another,
since some stores keep them as files. Writes are whole objects; a reader sees an object entirely or not at
all.
"""

import hashlib
import io
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from shared.contracts.errors import (
    ConfigError,
    ConflictError,
    DataInvalidError,
    ForbiddenError,
    HematovisionError,
    NoSpaceError,
    NotFoundError,
    ServiceUnavailableError,
)

_KEY: Final = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")
_LONGEST_KEY: Final = 512
_TIMEOUT: Final = urllib3.Timeout(connect=5, read=60)
_RETRIES: Final = urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504))


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says about an object: bytes, ``etag`` without quotes, when it was last written (UTC)."""

    size: int
    etag: str
    modified: datetime


class ObjectStore(Protocol):
    """Where cases, reports and models lie. Every adapter passes ``tests/contracts/test_object_store.py``.

    Any method may raise `ServiceUnavailableError` when the store does not answer, and `DataInvalidError`
    for a bad key.
    """

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write an object whole, replacing what is there.

        Raises:
            ConflictError: ``if_absent`` and it is there already. After a `ServiceUnavailableError` it may
            be one's own earlier write: compare the content before giving up. NoSpaceError: the store is
            full.
        """
        ...

    def get(self, key: str, *, most: int | None = None) -> bytes:
        """Read an object whole.

        Args:
            key: its path.
            most: bytes that are read at the most; what others wrote may be of any size.

        Raises:
            NotFoundError: there is none.
            DataInvalidError: it is larger than ``most``.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is known about an object, or None if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` (any text, also empty), in order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        ...

    def presign_put(self, key: str, *, expires: timedelta) -> str:
        """Return an address to which anybody may PUT this one object until it expires."""
        ...

    def presign_get(self, key: str, *, expires: timedelta) -> str:
        """Return an address from which anybody may GET this one object until it expires."""
        ...


class MemoryStore:
    """A store in memory, safe between threads. `redeem` stands for the HTTP server behind its addresses."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._secret = secrets.token_hex(16)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        with self._lock:
            if if_absent and key in self._objects:
                raise _already_there()
            self._objects[key] = (bytes(data), self._clock())

    def get(self, key: str, *, most: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise _not_there()
            data = self._objects[key][0]
        if most is not None and len(data) > most:
            raise _too_large()
        return data

    def head(self, key: str) -> ObjectInfo | None:
        """See `ObjectStore.head`."""
        check_key(key)
        with self._lock:
            if key not in self._objects:
                return None
            data, modified = self._objects[key]
        return ObjectInfo(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), modified)

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        yield from keys

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def presign_put(self, key: str, *, expires: timedelta) -> str:
        """See `ObjectStore.presign_put`."""
        return self._address("PUT", key, expires)

    def presign_get(self, key: str, *, expires: timedelta) -> str:
        """See `ObjectStore.presign_get`."""
        return self._address("GET", key, expires)

    def redeem(self, method: str, address: str, data: bytes = b"") -> bytes:
        """Do what a PUT or GET of a presigned address does.

        Raises:
            ForbiddenError: the address was made for another method, was changed, or has expired.
        """
        parts = urlsplit(address)
        key = parts.path.removeprefix("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        until = query.get("until", "0")
        if query.get("token") != self._token(method, key, until) or self._clock().timestamp() > float(until):
            raise ForbiddenError("The address is not valid (any more); ask for a new one.")
        if method == "GET":
            return self.get(key)
        self.put(key, data)
        return b""

    def _address(self, method: str, key: str, expires: timedelta) -> str:
        check_key(key)
        until = str((self._clock() + expires).timestamp())
        return f"memory://store/{key}?until={until}&token={self._token(method, key, until)}"

    def _token(self, method: str, key: str, until: str) -> str:
        return hashlib.sha256(f"{self._secret}\n{method}\n{key}\n{until}".encode()).hexdigest()


class S3Store:
    """Any S3 store that honours conditional writes; run `self_test` on it once at start-up.

    ``endpoint`` is ``host:port``; ``ca_file`` the authority of its certificate where ``secure``.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        secure: bool = False,
        region: str = "us-east-1",
        ca_file: Path | None = None,
    ) -> None:
        self._bucket = bucket
        self._http = urllib3.PoolManager(
            timeout=_TIMEOUT,
            retries=_RETRIES,
            maxsize=16,
            cert_reqs="CERT_REQUIRED",
            ca_certs=None if ca_file is None else str(ca_file),
        )
        self._client = Minio(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=secure,
            region=region,
            http_client=self._http,
        )

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there; safe to call from several processes at once."""
        with _translated():
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        if if_absent:
            self._put_if_absent(key, data)
            return
        with _translated():
            self._client.put_object(self._bucket, key, io.BytesIO(data), len(data))

    def _put_if_absent(self, key: str, data: bytes) -> None:
        # The SDK has no conditional put; a presigned address takes the header (only x-amz-* must be signed).
        address = self.presign_put(key, expires=timedelta(minutes=5))
        with _translated():
            response = self._http.request("PUT", address, body=data, headers={"If-None-Match": "*"}, retries=False)
        if response.status in {409, 412}:
            raise _already_there()
        if response.status == 507:
            raise _full()
        if response.status != 200:
            raise _unavailable()

    def get(self, key: str, *, most: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        check_key(key)
        with _translated():
            response = self._client.get_object(self._bucket, key)
            try:
                data: bytes = response.read(None if most is None else most + 1)
            finally:
                response.close()
                response.release_conn()
        if most is not None and len(data) > most:
            raise _too_large()
        return data

    def head(self, key: str) -> ObjectInfo | None:
        """See `ObjectStore.head`."""
        check_key(key)
        try:
            with _translated():
                found = self._client.stat_object(self._bucket, key)
        except NotFoundError:
            return None
        modified = found.last_modified or datetime.fromtimestamp(0, UTC)
        return ObjectInfo(found.size or 0, (found.etag or "").strip('"'), modified)

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        with _translated():
            for found in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if found.object_name is not None and not found.is_dir:
                    yield found.object_name

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        check_key(key)
        with _translated():
            self._client.remove_object(self._bucket, key)

    def presign_put(self, key: str, *, expires: timedelta) -> str:
        """See `ObjectStore.presign_put`."""
        check_key(key)
        return self._client.presigned_put_object(self._bucket, key, expires=expires)

    def presign_get(self, key: str, *, expires: timedelta) -> str:
        """See `ObjectStore.presign_get`."""
        check_key(key)
        return self._client.presigned_get_object(self._bucket, key, expires=expires)


def check_key(key: str) -> None:
    """Refuse a key that some store would read otherwise than it was written (``..``, empty parts)."""
    parts = key.split("/")
    if len(key) > _LONGEST_KEY or not _KEY.fullmatch(key) or any(part in {".", ".."} for part in parts):
        raise DataInvalidError("An object's key must be a plain path: letters, digits, dots, dashes, underscores.")


def self_test(store: ObjectStore) -> None:
    """Refuse a store on which the commit point of a case would not hold.

    Some stores accept ``If-None-Match`` and ignore it; two writers would then both believe that they wrote
    first.

    Raises:
        ConfigError: the store overwrites under ``if_absent``, or does not give back what was put.
    """
    key = f"self-test/{secrets.token_hex(12)}"
    first, second = b"first", b"second"
    store.put(key, first, if_absent=True)
    try:
        try:
            store.put(key, second, if_absent=True)
        except ConflictError:
            kept = store.get(key) == first
        else:
            kept = False
        if not kept:
            raise ConfigError("The object store ignores If-None-Match and would overwrite cases; use another store.")
    finally:
        store.delete(key)
    if store.head(key) is not None:
        raise ConfigError("The object store does not delete; check its policy and object lock.")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _from_code(error.code or "") from None
    except ServerError as error:
        raise (_full() if error.status_code == 507 else _unavailable()) from None
    except (InvalidResponseError, MinioException, urllib3.exceptions.HTTPError):
        raise _unavailable() from None


def _from_code(code: str) -> HematovisionError:
    match code:
        case "NoSuchKey" | "NoSuchObject":
            return _not_there()
        case "PreconditionFailed" | "ConditionalRequestConflict":
            return _already_there()
        case "XMinioStorageFull" | "InsufficientStorage" | "QuotaExceeded":
            return _full()
        case "NoSuchBucket":
            return ConfigError("The object store has no such bucket; start the centre once to make it.")
        case "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch":
            return ConfigError("The object store refuses our credentials; check them in the settings.")
        case _:
            return _unavailable()


def _not_there() -> NotFoundError:
    return NotFoundError("There is no such object in the store.")


def _too_large() -> DataInvalidError:
    return DataInvalidError("The object is larger than it may be; do not use it.")


def _already_there() -> ConflictError:
    return ConflictError("The object is in the store already and is not overwritten.")


def _full() -> NoSpaceError:
    return NoSpaceError("The object store is full; make space there, and the upload goes on by itself.")


def _unavailable() -> ServiceUnavailableError:
    return ServiceUnavailableError("The object store does not answer; check that it runs, then try again.")
