"""Whose turn it is at the trainer, and whether somebody still waits for the answer.

A round that the centre has cut at its deadline, and one of a run that was stopped, end here: the centre cannot reach
what is under way, but each request tells when it was asked and for how long its answer is awaited.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from client_node.training.privacy import is_private
from shared.contracts.training import CensusRequest, EvaluateRequest, TrainRequest

NEWER: Final = "Abandoned: a newer round was asked for, so that nobody waits for this one any more."
LATE: Final = "Abandoned: the round's deadline is over, so that nobody waits for this answer any more."

_Place = tuple[str, int]
"""Run and round; 0 is the evaluation."""


@dataclass(eq=False, slots=True)
class Turn:
    """One request that waits or is worked at."""

    place: _Place | None
    """None: it is no part of a run."""
    asked_at: float
    """When the centre asked, in seconds by its clock."""
    ends: float
    """When nobody waits any more, by the monotonic clock."""
    superseded: bool = False

    def abandoned(self) -> str:
        """Return why nobody waits for the answer any more; empty where somebody may."""
        if self.superseded:
            return NEWER
        return LATE if time.monotonic() >= self.ends else ""


class Turns:
    """One request at a time: two would hold two models in memory and share one core.

    Of two requests for different rounds or runs, the one that was asked earlier is abandoned, in whichever order they
    come: a relay brings its request again after the trainer has died. The same round asked again waits instead.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._listed = threading.Lock()
        self._open: list[Turn] = []

    @property
    def busy(self) -> bool:
        """Whether a request is worked at."""
        return self._one.locked()

    @property
    def open(self) -> int:
        """How many requests wait or are worked at."""
        return len(self._open)

    @contextmanager
    def taken(
        self,
        request: TrainRequest | EvaluateRequest | CensusRequest,
        *,
        asked_at: float | None = None,
        seconds: float | None = None,
    ) -> Iterator[Turn]:
        """Wait for the request's turn, and hold it for the time of the block.

        ``asked_at``: by the centre's clock, None: now; ``seconds``: how long the answer is awaited from now on, None:
        for ever. A private round that has begun goes on beyond that: its update is kept, and answers the same round
        asked again at no further cost.
        """
        ends = math.inf if seconds is None else time.monotonic() + seconds
        turn = Turn(_place(request), time.time() if asked_at is None else asked_at, ends)
        self._enter(turn)
        try:
            with self._one:
                private = isinstance(request, TrainRequest) and is_private(request.privacy)
                if private and time.monotonic() < turn.ends:
                    turn.ends = math.inf
                yield turn
        finally:
            with self._listed:
                self._open.remove(turn)

    def _enter(self, turn: Turn) -> None:
        with self._listed:
            for other in self._open:
                if turn.place is not None and other.place is not None and turn.place != other.place:
                    older = turn if turn.asked_at < other.asked_at else other
                    older.superseded = True
            self._open.append(turn)


def _place(request: TrainRequest | EvaluateRequest | CensusRequest) -> _Place | None:
    if isinstance(request, CensusRequest):
        return None
    return request.run_key, request.round if isinstance(request, TrainRequest) else 0
