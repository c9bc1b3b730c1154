"""Server optimisers: the averaged update is a gradient, by which FedAvgM, FedAdam or FedYogi moves the model.

The mathematics are Flower's own classes'. Flower gives them all replies at once; we give them a *single* reply that
holds the streamed average, with weight 1 (their log then tells of one result): their own averaging changes nothing, and
memory stays a few models whatever the number of hospitals. The classes are made anew each round and given what they
kept (momentum ``m``, second moment ``v``) from the checkpoint: a killed ServerApp goes on as if it had not been.

Three things are ours. Steps go to the fp32 model, not to its fp16 form that travelled: a step below fp16's resolution
would be lost each round. The state is fp32, as it is stored, so that a resumed run computes the same bits. Tensors
that no hospital trained in a round (the finder without marked fields) do not move on old momentum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, Metadata, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from server.federation.strategies.average import WeightedAverage
from server.federation.strategies.port import Closed, Result, Sent, Update
from server.federation.strategies.registry import AdaptiveParameters, FedAvgMParameters, FedYogiParameters
from server.federation.strategies.tensors import Tensors

MOMENTUM, SECOND_MOMENT = "m/", "v/"
"""Begin of the names in `Result.state`; after it stands the tensor's name."""
_WEIGHT = "num-examples"


class Optimiser(Protocol):
    """One of Flower's optimisers, with its parameters."""

    def step(self, number: int, current: Tensors, target: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """Return (new model, new state) of a round whose model was ``current`` and whose average is ``target``.

        ``state`` holds zeros where nothing is kept yet. All tensors fp32; the same names in all, state's prefixed.
        """
        ...

    def zeros(self, tensors: Tensors) -> Tensors:
        """Return the state before the first round of ``tensors``."""
        ...


@dataclass(frozen=True, slots=True)
class FedAvgM:
    """Server learning rate and momentum (Hsu et al. 2019)."""

    parameters: FedAvgMParameters

    def step(self, number: int, current: Tensors, target: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """See `Optimiser`."""
        algorithm = flower.FedAvgM(
            server_learning_rate=self.parameters.server_learning_rate, server_momentum=self.parameters.momentum
        )
        names = list(current)  # Flower pairs its arrays by their order
        algorithm.current_arrays = _record(current)
        algorithm.momentum_vector = [state[MOMENTUM + name] for name in names]
        new = _aggregate(algorithm, number, {name: target[name] for name in names})
        kept = dict(zip(names, algorithm.momentum_vector, strict=True))
        return new, _prefixed(MOMENTUM, kept)

    def zeros(self, tensors: Tensors) -> Tensors:
        """See `Optimiser`."""
        return _prefixed(MOMENTUM, {name: np.zeros_like(array) for name, array in tensors.items()})


@dataclass(frozen=True, slots=True)
class Adaptive:
    """FedAdam and FedYogi (Reddi et al. 2021): each value has a learning rate of its own."""

    parameters: AdaptiveParameters

    def step(self, number: int, current: Tensors, target: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """See `Optimiser`."""
        given = self.parameters
        kind = flower.FedYogi if isinstance(given, FedYogiParameters) else flower.FedAdam
        algorithm = kind(eta=given.server_learning_rate, beta_1=given.beta_1, beta_2=given.beta_2, tau=given.tau)
        algorithm.current_arrays = current
        algorithm.m_t = {name: state[MOMENTUM + name] for name in current}
        algorithm.v_t = {name: state[SECOND_MOMENT + name] for name in current}
        new = _aggregate(algorithm, number, target)
        return new, _prefixed(MOMENTUM, algorithm.m_t) | _prefixed(SECOND_MOMENT, algorithm.v_t)

    def zeros(self, tensors: Tensors) -> Tensors:
        """See `Optimiser`."""
        nothing = {name: np.zeros_like(array) for name, array in tensors.items()}
        return _prefixed(MOMENTUM, nothing) | _prefixed(SECOND_MOMENT, nothing)


class ServerOptimised:
    """The strategy: average, then a step of the optimiser."""

    def __init__(self, optimiser: Optimiser) -> None:
        self._optimiser = optimiser

    def begin(self, sent: Sent) -> "OptimisedAverage":
        """Begin a round; see `Strategy`."""
        return OptimisedAverage(sent, self._optimiser)


class OptimisedAverage:
    """One round; see `Aggregation`."""

    def __init__(self, sent: Sent, optimiser: Optimiser) -> None:
        self._sent = sent
        self._optimiser = optimiser
        self._average = WeightedAverage(sent)

    @property
    def updates(self) -> int:
        """How many updates are in the average."""
        return self._average.updates

    def add(self, update: Update) -> None:
        """Add to the average; see `Aggregation`."""
        self._average.add(update)

    def close(self) -> Closed:
        """Every update counts; see `Aggregation`."""
        return self._average.close()

    def result(self) -> Result:
        """Step from the fp32 model by what the hospitals changed on the fp16 one; see `Aggregation`."""
        sent, average = self._sent, self._average.average()
        moved = sorted(self._average.moved())
        current = {name: sent.exact[name] for name in moved}
        target = {name: current[name] + (average[name] - sent.tensors[name]) for name in moved}
        state = {**self._optimiser.zeros(current), **sent.state}
        new, kept = self._optimiser.step(sent.number, current, target, state)
        return Result({**sent.exact, **new}, {**state, **kept})


def _aggregate(algorithm: Any, number: int, target: Tensors) -> Tensors:  # Any: Flower's classes carry no types here
    content = RecordDict({"arrays": _record(target), "metrics": MetricRecord({_WEIGHT: 1.0})})
    arrays, _ = algorithm.aggregate_train(number, [reply_of(content)])
    return {name: np.asarray(array.numpy(), np.float32) for name, array in arrays.items()}


def reply_of(content: RecordDict) -> Message:
    """Return ``content`` as a node's reply. It never travels: its metadata say nothing, and need no Flower task."""
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=1.0,
        message_type=MessageType.TRAIN,
    )
    reply: Message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]  # as its own transport does
    return reply


def _record(tensors: Tensors) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in tensors.items()})


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> Tensors:  # Any: what Flower kept, of any float type
    return {prefix + name: np.asarray(array, np.float32) for name, array in tensors.items()}
