"""The port of a strategy: a round begins from what was sent, takes one verified update at a time, yields a result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from server.federation.strategies.tensors import Tensors, read_tensors
from shared.packing import Reference, check_packed, unpack
from shared.tensors import TensorSpec, check_tensors


@dataclass(frozen=True, slots=True)
class Sent:
    """What a round started from, on both sides of the wire."""

    number: int
    """The round, from 1."""
    size: int
    """Bytes that an update of the same tensors has in fp16."""
    specs: Mapping[str, TensorSpec]
    """An update must have these names and shapes."""
    tensors: Tensors
    """What updates are compared with: the body's values, fp16 held as fp32; or the exact values where it was packed,
    since a packed update tells what changed, and is read as that change of these."""
    exact: Tensors
    """The fp32 values that the body was rounded from: steps smaller than it can say add up here."""
    state: Tensors = field(default_factory=dict)
    """What the strategy kept of the round before, as it gave it in `Result.state`; empty in the first round."""
    received: Reference | None = None
    """What hospitals make of a packed body, from which their updates' differences are; None: it was no packed one."""

    @classmethod
    def of(cls, number: int, body: bytes, exact: Tensors | None = None, state: Tensors | None = None) -> Self:
        """Return what ``body`` (safetensors) sends; ``exact`` defaults to the body's own values."""
        tensors = read_tensors(body)
        return cls(number, len(body), check_tensors(body), tensors, tensors if exact is None else exact, state or {})

    @classmethod
    def packed(cls, number: int, body: bytes, base: Reference, exact: Tensors, state: Tensors | None = None) -> Self:
        """Return what ``body`` sends, which was packed from ``exact`` against ``base``."""
        received = Reference.of(unpack(body, base))
        specs = check_packed(body)
        size = 2 * sum(array.size for array in exact.values())
        return cls(number, size, specs, exact, exact, state or {}, received)

    @property
    def as_received(self) -> Tensors:
        """What hospitals start from: the body's values."""
        return self.tensors if self.received is None else dict(self.received.tensors)


@dataclass(frozen=True, slots=True)
class Update:
    """One site's tensors after training, verified by `updates.verify`: names, shapes and finite values are right."""

    site: str
    tensors: Mapping[str, NDArray[np.floating[Any]]]  # Any: fp16 or fp32, as the site sent them
    examples: int
    """Training cells, > 0."""
    boxes: int = 0
    """Cells marked in fields; 0: the finder's tensors are as they were sent, and do not count."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What came out once no more updates come. Reasons are sentences for the coordinator, by site."""

    refused: Mapping[str, str] = field(default_factory=dict)
    """Updates that were taken at first and turned out to be unfit; they do not count as taking part."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Sound updates that the strategy does not use in this round."""
    notes: tuple[str, ...] = ()
    """What else the log book should say."""
    epsilon: float | None = None
    """What noise added here has spent of every hospital, this round included; None: none was added."""


@dataclass(frozen=True, slots=True)
class Result:
    """The round's model, fp32, and the state to hand to the next round; both are checkpointed."""

    tensors: Tensors
    state: Tensors = field(default_factory=dict)


class Aggregation(Protocol):
    """One round's updates on their way into one model."""

    @property
    def updates(self) -> int:
        """How many updates are taken; final after `close`."""
        ...

    def add(self, update: Update) -> None:
        """Take one update.

        Raises:
            HematovisionError: it cannot be used; nothing is changed then. The sentence is for the coordinator.
        """
        ...

    def close(self) -> Closed:
        """Say what became of the updates; no more come. Called once."""
        ...

    def result(self) -> Result:
        """Return the model of the updates that are left, after `close`.

        Raises:
            RunFailedError: there are too few of them.
        """
        ...


class Strategy(Protocol):
    """A way to make one model of a round's updates. Holds its parameters only: all else is in `Sent` and `Result`."""

    def begin(self, sent: Sent) -> Aggregation:
        """Begin a round."""
        ...
