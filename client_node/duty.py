"""A piece of work that the agent does again and again, in its own thread; its failure stops no other."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict

from shared.contracts.errors import HematovisionError

_LONGEST_PAUSE: Final = 60.0

log = structlog.get_logger(__name__)


class DutyStatus(BaseModel):
    """How a duty is."""

    model_config = ConfigDict(frozen=True)

    last_success_at: datetime | None
    problem: str


class Duty:
    """Calls ``work`` every ``period`` seconds, or at once after `wake`; after failures less and less often."""

    def __init__(self, name: str, period: float, work: Callable[[], None], *, longest: float = _LONGEST_PAUSE) -> None:
        self.name = name
        self._period = period
        self._work = work
        self._longest = max(longest, period)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._last: datetime | None = None
        self._problem = ""

    @property
    def status(self) -> DutyStatus:
        """How it is."""
        return DutyStatus(last_success_at=self._last, problem=self._problem)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Do the work now instead of at its time."""
        self._wake.set()

    def stop(self) -> None:
        """Ask it to end after what it is doing."""
        self._stop.set()
        self._wake.set()

    def join(self, until: float) -> None:
        """Wait for its end, until a moment of the monotonic clock."""
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            failures = 0 if self._once() else failures + 1
            self._wake.wait(min(self._period * 2.0 ** min(failures, 8), self._longest))
            self._wake.clear()

    def _once(self) -> bool:
        try:
            self._work()
        except HematovisionError as error:
            self._failed(error.message, error.code)
            return False
        except Exception:  # the duty must outlive anything it meets
            log.exception("duty.crashed", duty=self.name)
            self._failed(f"{self.name} failed unexpectedly: see the agent's log", "error")
            return False
        self._last, self._problem = datetime.now(UTC), ""
        return True

    def _failed(self, problem: str, code: str) -> None:
        if problem != self._problem:
            log.warning("duty.failed", duty=self.name, code=code, reason=problem)
        self._problem = problem
