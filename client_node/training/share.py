"""The hospital's hand on a round under way: how much of the machine it takes, and whether it may still go on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from client_node.policy import load_policy
from shared.contracts.training import Request

_LEAST_REST: Final = 0.05
"""Seconds: shorter rests are put off until enough of them are owed, since waking up costs something too."""
_STEP: Final = 0.5
"""Seconds between two looks at whether to end while resting."""
_TICK: Final = 1e-3
"""Seconds: no sleep is asked for that the clock might not show."""
_LOOK: Final = 10.0
"""Seconds between two looks at the policy."""


class DutyCycle:
    """Rests between batches, so that computing takes no more than ``share`` of the wall clock.

    `rest` after each piece of work, `resume` before the next: time between the two is not counted as work. ``settle``
    waits until a device has done what it was given (a GPU works on after the call has returned).
    """

    def __init__(
        self,
        share: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._owed_for_each = 1.0 / share - 1.0
        self._clock, self._sleep, self._settle = clock, sleep, settle
        self._owed = 0.0
        self._since = clock()

    def rest(self, stopping: Callable[[], bool] = lambda: False) -> float:
        """Rest for the work since `resume`, unless ``stopping``; return the seconds rested."""
        if not self._owed_for_each:
            return 0.0
        self._settle()
        begin = self._clock()
        self._owed += (begin - self._since) * self._owed_for_each
        now = begin
        if self._owed >= _LEAST_REST:
            while (left := self._owed - (now - begin)) > _TICK and not stopping():
                self._sleep(min(left, _STEP))
                now = self._clock()
            self._owed -= now - begin  # below zero where it slept longer: taken off the next rest
        self._since = now
        return now - begin

    def resume(self) -> None:
        """Work begins."""
        self._since = self._clock()


class Hold:
    """One request's hold on the machine; `between` is called between batches.

    Making one limits the GPU memory of this process as the policy says.
    """

    def __init__(self, home: Path, request: Request, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._home, self._request, self._clock = home, request, clock
        share = load_policy(home).share
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_per_process_memory_fraction(share.memory)
        self._cycle = DutyCycle(share.time, settle=torch.cuda.synchronize if gpu else lambda: None)
        self._looked = clock()

    def between(self, stopping: Callable[[], bool]) -> None:
        """Rest as the policy asks; every ten seconds see whether it still allows what is under way.

        Raises:
            PolicyRefusedError: it does not any more (its hours are over, or the hospital has changed it).
        """
        self._cycle.rest(stopping)
        if self._clock() - self._looked >= _LOOK:
            load_policy(self._home).check_train(self._request)
            self._looked = self._clock()

    def resume(self) -> None:
        """Work goes on."""
        self._cycle.resume()
