"""The port through which a run speaks to the connected nodes; Flower's adapter is in `server_app`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.contracts.training import Request


@dataclass(frozen=True, slots=True)
class Ask:
    """What is sent to one node; ``tensors`` are safetensors bytes."""

    request: Request
    tensors: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a node.

    ``problem`` is set where Flower itself reports an error; then the rest is empty. ``offline``: the error is that the
    node's connection was lost.
    """

    node_id: int
    reply: str
    tensors: bytes
    problem: str | None = None
    offline: bool = False


class Fleet(Protocol):
    """The connected nodes.

    Implementations make no promise that a node answers, answers once or tells the truth.
    """

    def online(self) -> set[int]:
        """Return Flower's ids of the nodes connected at this moment; the SuperLink has checked their keys."""
        ...

    def ask(
        self, asks: Mapping[int, Ask], *, group: str, seconds: float, stopped: Callable[[], bool]
    ) -> Iterator[Answer]:
        """Send every node its ask and yield answers as they arrive.

        Ends when all have answered, ``seconds`` are over or ``stopped()`` says so.
        """
        ...
