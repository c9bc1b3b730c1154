"""The port through which a run speaks to the connected nodes; Flower's adapter is in `server_app`."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

from shared.contracts.masking import Step
from shared.contracts.training import Request


@dataclass(frozen=True, slots=True)
class Ask:
    """What is sent to one node; ``tensors`` in the form that a round's request names, else safetensors."""

    request: Request | Step
    tensors: bytes

    @property
    def text(self) -> str:
        """The request as it travels."""
        return self.request.model_dump_json(by_alias=True)

    def fresh(self) -> Self:
        """Return the same with a nonce that no request had before: an earlier answer does not fit it."""
        return replace(self, request=self.request.model_copy(update={"nonce": secrets.token_hex(16)}))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a node.

    ``problem`` is set where Flower itself reports an error; then the rest is empty. ``offline``: the error is that the
    node's connection was lost. ``seal`` is the node's signature over the answer, and ``fault`` what is wrong with it.
    """

    node_id: int
    reply: str
    tensors: bytes
    problem: str | None = None
    offline: bool = False
    seal: str = ""
    fault: str | None = None


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
