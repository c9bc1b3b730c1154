"""The `Fleet` of a simulation: every hospital's home on this machine, a few trainers that answer for them in turn."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.simulate import worker
from server.federation.fleet import Answer, Ask
from shared.contracts.errors import RunFailedError

_LOOK: Final = 0.5
"""Seconds between two looks at whether the run was stopped."""


class PoolFleet:
    """Hospitals by node id, answered for by ``pool``; see `trainers`.

    No more asks are handed out than there are trainers, and one: an answer waits in memory only until it is taken.
    ``heard`` is called once for each answer.
    """

    def __init__(
        self, homes: Mapping[int, Path], pool: ProcessPoolExecutor, trainers: int, *, heard: Callable[[], None]
    ) -> None:
        self._homes = homes
        self._pool = pool
        self._ahead = trainers + 1
        self._heard = heard
        self.trainer_bytes = 0
        """The most resident bytes that one trainer has told of."""

    def online(self) -> set[int]:
        """Return every hospital; see `Fleet`."""
        return set(self._homes)

    def ask(
        self,
        asks: Mapping[int, Ask],
        *,
        group: str,  # noqa: ARG002 - the port's
        seconds: float,
        stopped: Callable[[], bool],
    ) -> Iterator[Answer]:
        """Yield the answers as they come; see `Fleet`.

        Raises:
            RunFailedError: a trainer's process has died.
        """
        end = time.monotonic() + seconds
        left, under_way = list(asks.items())[::-1], dict[Future[worker.Told], int]()
        try:
            while (left or under_way) and time.monotonic() < end and not stopped():
                while left and len(under_way) < self._ahead:
                    node, ask = left.pop()
                    home = str(self._homes[node])
                    under_way[self._pool.submit(worker.answer, home, ask.text, ask.tensors)] = node
                for done in wait(under_way, timeout=_LOOK, return_when=FIRST_COMPLETED).done:
                    yield self._taken(under_way.pop(done), done)
        except BrokenProcessPool:
            raise RunFailedError(
                "A trainer of the simulation died, most often for want of memory: give fewer --trainers."
            ) from None
        finally:
            for one in under_way:
                one.cancel()

    def _taken(self, node: int, done: Future[worker.Told]) -> Answer:
        reply, seal, tensors, size = done.result()
        self.trainer_bytes = max(self.trainer_bytes, size)
        self._heard()
        return Answer(node, reply, tensors, seal=seal)


@contextmanager
def trainers(count: int, *, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of ``count`` trainers: processes of their own, so that this one's memory is the server's alone."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=worker.prepare, initargs=(threads,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
