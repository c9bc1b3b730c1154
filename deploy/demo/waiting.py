"""Waiting for something that another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

from shared.contracts.errors import ServiceUnavailableError

T = TypeVar("T")


def wait_for(
    look: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    every: float = 0.5,
    alive: Callable[[], None] | None = None,
) -> T:
    """Call ``look`` until it returns something truthy and return that.

    Args:
        look: returns None (or anything falsy) while it is not so far.
        what: completes "… did not happen within n s".
        timeout: seconds.
        every: seconds between looks.
        alive: called between looks; raises where waiting on makes no sense, because a process has ended.

    Raises:
        ServiceUnavailableError: it took too long.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if alive is not None:
            alive()
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(f"{what} did not happen within {timeout:.0f} s; the logs folder tells more.")
        time.sleep(every)
