"""Whether this node is silent to the centre though its processes live: then one of them is started again.

Two things can hang without ending. A SuperNode may have lost the SuperLink, or hand nothing on; the centre tells with
each heartbeat's answer what it does not hear, and the node compares that with what arrived here. A trainer may answer
no call any more. Only this node's own processes are started again; nothing else follows from what the centre says.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_node import ipc
from shared.contracts.enrolment import HeartbeatReply
from shared.contracts.errors import HematovisionError

_YOUNG: Final = 90.0
"""Seconds: a SuperNode that has just been started may be refused for about 60 s."""
_LOST: Final = 45.0
_AT_REST: Final = 30.0
_GIVEN_UP: Final = 600.0
"""While the trainer works, its answer may still find its way once the line is back: a restart would lose it."""
_UNHEARD: Final = 120.0
"""A large message over a slow line takes its time before it reaches the relay."""
_UNANSWERED: Final = 300.0
"""And so does the answer on its way back, while the trainer is idle already."""
_MOST_UNANSWERED_PINGS: Final = 3
_PING_TIMEOUT: Final = 15.0
_MARK: Final = "asked"


def heard(home: Path) -> None:
    """Mark that a request of the centre has reached this node's relay."""
    with suppress(OSError):  # a full disk must not keep the node from answering
        (home / "run").mkdir(parents=True, exist_ok=True)
        (home / "run" / _MARK).touch()


def seconds_since_heard(home: Path) -> float:
    """Return how long ago a request reached this node's relay; infinite: never."""
    try:
        return max(0.0, time.time() - (home / "run" / _MARK).stat().st_mtime)
    except OSError:
        return float("inf")


@dataclass
class TrainerPulse:
    """Whether the trainer answers, and since when it has been idle; ask it now and then by `beat`.

    ``which`` tells one trainer from the next: what its predecessor did not answer says nothing of it.
    """

    home: Path
    which: Callable[[], float] = lambda: 0.0
    unanswered: int = 0
    asked: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Ask the trainer whether it is busy."""
        if self.asked != self.which():
            self.asked, self.unanswered = self.which(), 0
        try:
            answer, _ = ipc.call(ipc.socket_path(self.home, "trainer"), {"op": "ping"}, timeout=_PING_TIMEOUT)
        except HematovisionError:
            self.unanswered += self.asked == self.which()
            return
        self.unanswered = 0
        if answer.get("busy"):
            self.idle_since = time.monotonic()

    @property
    def hangs(self) -> bool:
        """Whether it has answered none of the last calls."""
        return self.unanswered >= _MOST_UNANSWERED_PINGS

    @property
    def idle_seconds(self) -> float:
        """How long it has not been busy, as far as it was asked."""
        return time.monotonic() - self.idle_since


def why_restart(reply: HeartbeatReply, *, up: float, heard_ago: float, idle: float) -> str | None:
    """Return why the SuperNode must be started again, or None.

    ``up``: seconds since its start; ``heard_ago``: since a request reached the relay; ``idle``: that the trainer has
    been idle.
    """
    if up < _YOUNG:
        return None
    lost = reply.lost_seconds
    if lost is not None and lost > _LOST and (idle > _AT_REST or lost > _GIVEN_UP):
        return f"the centre has not heard this node's SuperNode for {lost:.0f} s"
    asked = reply.asked_seconds
    if asked is not None and asked > _UNHEARD and heard_ago > asked:
        return f"the centre asked {asked:.0f} s ago, and nothing has arrived here"
    if asked is not None and asked > _UNANSWERED and idle > _UNANSWERED:
        return f"the centre awaits an answer for {asked:.0f} s, and the trainer has none to give"
    return None
