"""Local sockets between a node's processes, and the lease by which training makes way for an urgent smear.

A frame is a 4-byte big-endian header length, a JSON header, an 8-byte body length and the body (safetensors
or nothing). A call is one connection with one frame each way. Only processes of the same user are answered and called.
"""

import fcntl
import json
import os
import selectors
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from shared.contracts.errors import (
    ConfigError,
    DataInvalidError,
    HematovisionError,
    ServiceUnavailableError,
    error_from_code,
)

Header = dict[str, Any]  # JSON object: each op's contract validates what it reads
Handler = Callable[[Header, bytes], tuple[Header, bytes]]

MAX_HEADER = 16 * 1024 * 1024
MAX_BODY = 512 * 1024 * 1024
MAX_PATH = 100
"""Below the system's 107 bytes for a socket's path."""
MAX_CONNECTIONS = 16
FRAME_TIMEOUT = 30.0
"""Seconds in which a connected peer must have sent its whole frame."""

log = structlog.get_logger(__name__)


def socket_path(home: Path, name: str) -> Path:
    """Return where a node's socket lives: in ``home/run``, or a private temporary folder if too long."""
    path = home.resolve() / "run" / f"{name}.sock"
    if len(os.fsencode(path)) <= MAX_PATH:
        return path
    digest = sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"hematovision-{os.getuid()}" / digest / f"{name}.sock"


class Stop:
    """A flag that a signal handler may set and that ends `serve` at once, without polling."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def set(self) -> None:
        """End `serve`; safe to call from a signal handler and more than once."""
        self._flag.set()
        with suppress(OSError):
            self._writer.send(b"x")

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._flag.is_set()

    @property
    def reader(self) -> socket.socket:
        """Readable once the flag is set."""
        return self._reader

    def close(self) -> None:
        """Release the file descriptors."""
        self._reader.close()
        self._writer.close()


def serve(path: Path, handler: Handler, *, stop: Stop, grace: float = 5.0) -> None:
    """Answer calls on ``path``, each in its own thread, until ``stop`` is set; then wait ``grace`` s.

    A `HematovisionError` of the handler goes back as its code and message, any other exception as a plain
    failure: the process survives both. Raises `ConfigError` where a living process serves the same path.
    """
    listener = _listen(path)
    slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
    threads: set[threading.Thread] = set()
    try:
        for connection in _connections(listener, stop):
            threads = {thread for thread in threads if thread.is_alive()}
            if not slots.acquire(blocking=False):
                connection.close()
                continue
            thread = threading.Thread(target=_answer, args=(connection, handler, slots), daemon=True)
            threads.add(thread)
            thread.start()
    finally:
        listener.close()
        path.unlink(missing_ok=True)
        end = time.monotonic() + grace
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def clear(path: Path) -> None:
    """Remove the socket of a killed process at ``path``: one that is there counts as served. A living one stays."""
    if path.exists() and not _alive(path):
        path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise ConfigError("The folder of the node's sockets belongs to another user; remove it or set TMPDIR.")
    if path.exists():
        if _alive(path):
            raise ConfigError("This node's process is already running; stop it first.")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unready = path.with_suffix(f".{os.getpid()}")
    try:
        listener.bind(os.fspath(unready))
        unready.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
        unready.rename(path)  # whoever sees the socket can connect to it
    except OSError as error:
        listener.close()
        raise ConfigError("The node's socket cannot be made; check the rights on its home folder.") from error
    return listener


def _alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True


def _connections(listener: socket.socket, stop: Stop) -> Iterator[socket.socket]:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop.reader, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select():
                if key.fileobj is listener:
                    with suppress(OSError):
                        yield listener.accept()[0]


def _answer(connection: socket.socket, handler: Handler, slots: threading.BoundedSemaphore) -> None:
    try:
        with connection:
            connection.settimeout(FRAME_TIMEOUT)
            _check_peer(connection)
            header, body = _handled(connection, handler)
            with suppress(OSError):  # a caller that has gone away needs no answer
                connection.settimeout(FRAME_TIMEOUT)
                _send(connection, header, body)
    except (HematovisionError, OSError) as error:
        log.warning("ipc.bad_peer", reason=str(error))
    finally:
        slots.release()


def _handled(connection: socket.socket, handler: Handler) -> tuple[Header, bytes]:
    try:
        header, body = _receive(connection)
        return handler(header, body)
    except HematovisionError as error:
        return {"error": {"code": error.code, "message": error.message}}, b""
    except Exception:  # the process must outlive any one call
        log.exception("ipc.handler_failed")
        message = "The node's process failed on this call; see its log in the node's home folder."
        return {"error": {"code": HematovisionError.code, "message": message}}, b""


def _check_peer(connection: socket.socket) -> None:
    option = getattr(socket, "SO_PEERCRED", None)  # Linux only; elsewhere the folder's rights must do
    if option is None:
        return
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    if uid not in (os.getuid(), 0):
        raise ConfigError("A process of another user is at the other end of this node's socket.")


def call(path: Path, header: Header, body: bytes = b"", *, timeout: float = 30.0) -> tuple[Header, bytes]:
    """Send one frame to the process behind ``path``; return its answer, waiting at most ``timeout`` seconds.

    Raises `ServiceUnavailableError` if nothing answers, and the handler's own error if it raised one.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(os.fspath(path))
            _check_peer(connection)
            with suppress(BrokenPipeError):  # refused before all was sent: the answer says why
                _send(connection, header, body)
            answer, tensors = _receive(connection)
    except TimeoutError as error:
        raise ServiceUnavailableError(f"The node's {path.stem} did not answer in {timeout:.0f} s.") from error
    except OSError as error:
        raise ServiceUnavailableError(
            f"The node's {path.stem} is not running; start it with: hematovision-node run"
        ) from error
    problem = answer.get("error")
    if isinstance(problem, dict):
        raise error_from_code(str(problem.get("code")), str(problem.get("message")))
    return answer, tensors


def _send(connection: socket.socket, header: Header, body: bytes) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER or len(body) > MAX_BODY:
        raise DataInvalidError("A message between the node's processes is too large.")
    connection.sendall(struct.pack(">I", len(text)) + text + struct.pack(">Q", len(body)))
    if body:  # sending nothing to a peer that has already answered would be a broken pipe
        connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[Header, bytes]:
    (size,) = struct.unpack(">I", _exactly(connection, 4))
    if size > MAX_HEADER:
        raise DataInvalidError("A message to this node's process has an oversize header.")
    try:
        header = json.loads(_exactly(connection, size))
    except ValueError as error:
        raise DataInvalidError("A message to this node's process is not JSON.") from error
    if not isinstance(header, dict):
        raise DataInvalidError("A message to this node's process is not a JSON object.")
    (size,) = struct.unpack(">Q", _exactly(connection, 8))
    if size > MAX_BODY:
        raise DataInvalidError("A message to this node's process has an oversize body.")
    return header, _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = connection.recv(min(1 << 20, size - len(chunks)))
        if not chunk:
            raise ServiceUnavailableError("The other process closed the connection in the middle of a message.")
        chunks += chunk
    return bytes(chunks)


class Lease:
    """By file locks, training stands still between two batches while a smear is analysed that needs the machine.

    Analyses hold a lock together (shared): an urgent one that of the machine, any other that of the GPU where it
    computes on one. `pause_point` of the trainer only asks whether anyone holds them. The kernel drops the lock of a
    process that dies.
    """

    def __init__(self, home: Path) -> None:
        self._machine = home / "run" / "lease.lock"
        self._gpu = home / "run" / "gpu.lock"
        self._turn_ends = 0.0

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Hold training still for the time of the block."""
        with _opened(self._machine) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    @contextmanager
    def gpu(self) -> Iterator[None]:
        """Hold training still for the time of the block if it computes on the GPU too."""
        with _opened(self._gpu) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    def pause_point(
        self, *, longest: float = 120.0, gpu: bool = False, waiting: Callable[[], None] = lambda: None
    ) -> float:
        """Wait while an urgent analysis runs, at most ``longest`` seconds; return the seconds waited.

        On a ``gpu`` wait for any analysis on it; then training has its turn for as long as it has waited, since a day
        of routine smears must not end it. ``waiting`` is called before a wait.
        """
        waited = _free(self._machine, longest, waiting)
        if gpu and time.monotonic() >= self._turn_ends:
            more = _free(self._gpu, longest, waiting)
            self._turn_ends = time.monotonic() + more
            waited += more
        return waited


def _free(path: Path, longest: float, waiting: Callable[[], None]) -> float:
    """Wait until nobody holds a lock, at most ``longest`` seconds; return the seconds waited."""
    begin = time.monotonic()
    with _opened(path) as handle:
        if not _held(handle):
            return 0.0
        waiting()
        while time.monotonic() - begin < longest and _held(handle):
            time.sleep(0.05)
    return time.monotonic() - begin


def _held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)
