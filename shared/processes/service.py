"""Start, watch and end the servers of a demo or a test, so that none is ever left behind."""

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

import psutil

from shared.contracts.errors import ExitCode, PortInUseError, ServiceUnavailableError

LOOPBACK: Final = "127.0.0.1"
_GUARD: Final = Path(__file__).with_name("guard.py")
# Below Linux's range for the local ends of outgoing connections, so that none grabs the port meanwhile.
_PORTS: Final = range(20_000, 32_000)
_TAIL_LINES: Final = 15
_LONGEST_PAUSE: Final = 30.0


class Service:
    """One program with all it starts, in a session and process group of its own, behind `guard`.

    ``stop_grace`` is how many seconds it has to end by itself; ``cleanup`` names files it leaves behind.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_path: Path,
        stop_grace: float = 10,
        cleanup: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.env = dict(os.environ if env is None else env)
        self.cwd = cwd
        self.log_path = log_path
        self.stop_grace = stop_grace
        self.cleanup = tuple(cleanup)
        self._guard: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    def start(self) -> Self:
        """Start it; a service that is alive stays as it is."""
        if self.alive:
            return self
        self._close_lifeline()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.touch(mode=0o600)
        reading, self._lifeline = os.pipe()
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(reading), str(self.stop_grace)]
        try:
            with self.log_path.open("ab") as log:
                self._guard = subprocess.Popen(
                    [*guard, *map(str, self.cleanup), "--", *self.argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.env,
                    cwd=self.cwd,
                    start_new_session=True,
                    pass_fds=(reading,),
                )
        finally:
            os.close(reading)
        return self

    @property
    def alive(self) -> bool:
        """Whether the program runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit status, as a shell would give it, once it has ended."""
        return None if self._guard is None else self._guard.poll()

    @property
    def pid(self) -> int:
        """The guard's process id: its descendants are all of this service."""
        if self._guard is None:
            raise ServiceUnavailableError(f"{self.name} has not been started.")
        return self._guard.pid

    def processes(self) -> list[psutil.Process]:
        """The program (first) and everything below it, as they are now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)  # type: ignore[no-any-return]  # untyped
        return []

    def wait_ready(self, probe: Callable[[], bool], timeout: float = 30) -> None:
        """Return once ``probe`` says yes.

        Raises:
            ServiceUnavailableError: it ended first, or the time is over; the message ends with the tail of
            its log.
        """
        deadline = time.monotonic() + timeout
        pause = 0.02
        while True:
            if not self.alive:
                raise self._failed(f"ended with status {self.returncode}")
            if probe():
                return
            if time.monotonic() > deadline:
                raise self._failed(f"is not ready after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program ends by itself; return its exit status (or `subprocess.TimeoutExpired`)."""
        return 0 if self._guard is None else self._guard.wait(timeout)

    def stop(self) -> None:
        """End the program, everything it started, and its group. Safe to call twice."""
        if self._guard is None:
            return
        below = self.processes() if self.alive else []
        if self.alive:
            self._guard.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(self.stop_grace + 3)
        self._kill(below)

    def kill(self) -> None:
        """End everything at once with SIGKILL, as a crash would (the guard too, so nothing is tidied)."""
        if self._guard is not None:
            self._kill(self.processes() if self.alive else [])

    def restart(self) -> Self:
        """Stop and start it again."""
        self.stop()
        return self.start()

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def _kill(self, below: list[psutil.Process]) -> None:
        guard = self._guard
        if guard is None:
            return
        if guard.poll() is None:
            below = [*below, *self.processes()]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        guard.wait()
        _wait_ended(below, timeout=5)
        self._close_lifeline()
        for path in self.cleanup:
            path.unlink(missing_ok=True)

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _failed(self, what: str) -> ServiceUnavailableError:
        tail = self.tail()
        said = f"\nIts last words:\n{tail}" if tail else ""
        return ServiceUnavailableError(f"{self.name} {what}; see {self.log_path.name}.{said}")


class Supervisor:
    """Ends services, last started first: on leaving ``with``, on a signal, at interpreter end."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self._owner = os.getpid()
        self._revived: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        atexit.register(self.stop)

    def start(self, service: Service, probe: Callable[[], bool] | None = None, timeout: float = 30) -> Service:
        """Start a service; given a probe, wait until it is ready; one that fails to is stopped at once."""
        self.services.append(service)
        service.start()
        if probe is not None:
            try:
                service.wait_ready(probe, timeout)
            except BaseException:
                self.discard(service)
                raise
        return service

    def discard(self, service: Service) -> None:
        """Stop one service and forget it."""
        service.stop()
        if service in self.services:
            self.services.remove(service)

    def check(self) -> None:
        """Raise `ServiceUnavailableError` for the first service that has ended on its own."""
        for service in self.services:
            if not service.alive:
                raise service._failed(f"ended with status {service.returncode}")  # noqa: SLF001 - same module

    def revive(self) -> list[str]:
        """Start every service again that has ended on its own; return their names.

        Call it about once a second. One that keeps ending is started less and less often, at last every 30 s.
        """
        revived = []
        for service in self.services:
            if service.alive or time.monotonic() < self._not_before.get(service.name, 0.0):
                continue
            tries = self._revived[service.name] = self._revived.get(service.name, 0) + 1
            self._not_before[service.name] = time.monotonic() + min(2.0**tries, _LONGEST_PAUSE)
            service.kill()  # what it left behind
            service.start()
            revived.append(service.name)
        return revived

    def stop(self) -> None:
        """Stop all, last started first."""
        if os.getpid() != self._owner:  # a fork of the launcher inherits the atexit hook, not the services
            return
        while self.services:
            self.services[-1].stop()
            self.services.pop()
        atexit.unregister(self.stop)

    def handle_signals(self) -> None:
        """Turn SIGTERM, SIGHUP and SIGINT into `SystemExit`, so ``with`` blocks end; main thread only."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._interrupted)

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        # From here on stopping takes a bounded time: a second Ctrl-C must not leave half of it undone.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(int(ExitCode.INTERRUPTED))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _wait_ended(processes: Sequence[psutil.Process], timeout: float) -> None:
    """Wait until none runs; a zombie has ended, whoever has yet to collect it."""
    deadline = time.monotonic() + timeout
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.02)


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = LOOPBACK) -> int:
    """Return a port nobody listens on just now."""
    for port in random.SystemRandom().sample(_PORTS, k=200):
        if _is_free(port, host):
            return port
    raise PortInUseError("No free port was found between 20000 and 32000; end what is using them.")


def free_ports(count: int) -> list[int]:
    """Return ``count`` different free ports."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)


def require_port(port: int, host: str = LOOPBACK) -> int:
    """Return ``port`` if it is free.

    Raises:
        PortInUseError: something else listens on it.
    """
    if not _is_free(port, host):
        raise PortInUseError(f"Port {port} is in use; end what listens on it, or choose another with --port.")
    return port
