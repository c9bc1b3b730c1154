"""Keeps one child process alive: starts it, starts it again with a growing pause, and says how it is."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import psutil
import structlog

from shared.contracts.errors import HematovisionError
from shared.processes import Service

_STEADY_SECONDS: Final = 60.0
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 30.0
_LOOK_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


def usual_delay(failures: int) -> float:
    """Return the pause in seconds before the next start."""
    return min(_FIRST_DELAY * 2.0 ** min(failures, 10), _LONGEST_DELAY)


def _is(process: psutil.Process, word: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any(word in one for one in process.cmdline())
    except psutil.Error:
        return False


class Keeper:
    """A child of the agent. ``make`` builds the service anew for each start, ``ready`` says when it serves.

    ``parts`` are words in the command lines of processes below it without which it is of no use: where one of them
    was there and has ended, the child is started again. A SuperNode, for one, goes on without its SuperExec, and hands
    nothing on any more.
    """

    def __init__(
        self, name: str, make: Callable[[], Service], *, ready: Callable[[], bool],
        delay: Callable[[int], float] = usual_delay, parts: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name = name
        self.problem = ""
        self._make = make
        self._ready = ready
        self._delay = delay
        self._service: Service | None = None
        self._failures = 0
        self._started = 0.0
        self._next = 0.0
        self._was_ready = False
        self._hung = ""
        self._parts = parts
        self._seen: set[str] = set()
        self._look = 0.0

    @property
    def up_seconds(self) -> float:
        """How long ago it was started; 0: it does not run."""
        running = self._service is not None and self._service.alive
        return time.monotonic() - self._started if running else 0.0

    @property
    def started(self) -> float:
        """When it was started last, by the monotonic clock: another start, another process."""
        return self._started

    @property
    def state(self) -> str:
        """``running``, ``starting``, ``failed`` (it is started again) or ``stopped``."""
        if self._service is None:
            return "failed" if self.problem else "stopped"
        if not self._service.alive:
            return "failed"
        self._was_ready = self._was_ready or self._ready()
        return "running" if self._was_ready else "starting"

    def tick(self) -> None:
        """Look after the child; call it about twice a second, always from the same thread."""
        now = time.monotonic()
        if self._hung and self._service is not None:
            self._end_hung(self._service, now)
        if self._service is not None and self._service.alive:
            if now - self._started > _STEADY_SECONDS:
                self._failures, self.problem = 0, ""
            if lost := self._lost_parts(self._service, now):
                self.restart(f"its {', '.join(sorted(lost))} had ended")
            return
        if self._service is not None:
            self._ended(self._service, now)
        if now >= self._next:
            self._start(now)

    def restart(self, reason: str) -> None:
        """Have the child, which lives but hangs, ended and started again at the next `tick`; from any thread."""
        self._hung = reason

    def stop(self) -> None:
        """End the child and everything below it."""
        if self._service is not None:
            self._service.stop()
            self._service = None
        self.problem = ""

    def _lost_parts(self, service: Service, now: float) -> set[str]:
        if not self._parts or now < self._look:
            return set()
        self._look = now + _LOOK_SECONDS
        there = {part for part in self._parts if any(_is(process, part) for process in service.processes())}
        lost, self._seen = self._seen - there, self._seen | there
        return lost

    def _end_hung(self, service: Service, now: float) -> None:
        self.problem = f"{self.name} was started again: {self._hung}"
        log.warning("process.hung", process_name=self.name, reason=self.problem)
        # Asked first: a SuperNode that still listens takes its leave of the SuperLink, which would refuse its successor
        # for about 60 s else. What does not listen is killed after the service's grace.
        service.stop()
        # Whoever found it hanging meanwhile meant this one, not its successor.
        self._service, self._hung, self._next = None, "", now

    def _ended(self, service: Service, now: float) -> None:
        self.problem = f"{self.name} ended with status {service.returncode}: see logs/{self.name}.log"
        log.warning("process.ended", process_name=self.name, status=service.returncode, failures=self._failures)
        service.stop()  # what it left behind
        self._service = None
        self._next = now + self._delay(self._failures)
        self._failures += 1

    def _start(self, now: float) -> None:
        self._was_ready, self._seen = False, set()
        try:
            self._service = self._make().start()
        except (HematovisionError, OSError) as error:
            self.problem = error.message if isinstance(error, HematovisionError) else f"{self.name} cannot be started"
            self._next = now + self._delay(self._failures)
            self._failures += 1
            return
        self._started = now
        log.info("process.started", process_name=self.name)
