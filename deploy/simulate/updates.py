"""Aggregation alone: synthetic updates of any size, made as they are taken, through the centre's own checks.

Each is sealed, unsealed, verified and added as a hospital's is; none is kept by us. A number of hospitals is measured
in a process of its own, whose memory therefore owes nothing to the one before.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from deploy.demo.memory import PeakMemory
from deploy.simulate.result import Scale
from server.federation.answers import read_reply
from server.federation.fleet import Answer, Ask
from server.federation.seals import SealCheck
from server.federation.strategies import registry
from server.federation.strategies.build import build
from server.federation.strategies.port import Result, Sent, Strategy
from server.federation.strategies.tensors import Tensors, wire_tensors
from server.federation.strategies.updates import verify
from shared.contracts.errors import RunFailedError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, SiteMetrics, TrainReply, TrainRequest
from shared.crypto.signing import SigningKey
from shared.seal import seal

_TENSORS: Final = 20
"""So many tensors an update has, of one size."""
_STEP: Final = 1e-2
"""Spread of what a synthetic hospital changes."""
_OFTEN: Final = 0.01
"""Seconds between two looks at the memory."""
_NODE: Final = 1
_REPLY: Final = TrainReply(
    examples=100,
    train_loss=0.0,
    received=SiteMetrics(n=0, loss=0.0, accuracy=0.0, macro_f1=0.0),
    seconds=0.0,
    manifest_sha256="0" * 64,
)
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What is aggregated: ``megabytes`` (10⁶ bytes, fp16) an update, ``rounds`` in a row; spools lie in ``folder``."""

    strategy: registry.Parameters
    megabytes: float
    rounds: int
    folder: Path


def measure(load: Load, hospitals: int, *, told: Told) -> Scale:
    """Return memory and seconds of ``hospitals`` updates a round; ``told`` is called with how many are done.

    Raises:
        RunFailedError: the process that aggregated has died, or the strategy refused.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, load, hospitals))
    child.start()
    theirs.close()
    try:
        while not isinstance(said := mine.recv(), Scale):
            if isinstance(said, str):
                raise RunFailedError(said)
            told(said)
    except EOFError:
        raise RunFailedError(
            "The aggregation died, most often for want of memory: give a smaller --update-mb."
        ) from None
    finally:
        child.join()
        mine.close()
    return said


def _child(pipe: "Connection[Any, Any]", load: Load, hospitals: int) -> None:  # Any: counts, then a Scale or a sentence
    try:
        pipe.send(aggregate(load, hospitals, told=pipe.send))
    except Exception as error:  # noqa: BLE001 - whoever waits tells of it
        pipe.send(f"The aggregation failed ({type(error).__name__}): {error}")


def aggregate(load: Load, hospitals: int, *, told: Told = lambda _done: None) -> Scale:
    """Aggregate in this process; see `measure`. Making the updates is not counted among the seconds."""
    strategy = build(load.strategy, folder=load.folder)
    site = _Site(int(load.megabytes * 1e6 / 2))
    last, seconds, taken = Result(site.start()), list[float](), 0
    with PeakMemory(interval_seconds=_OFTEN, tree=False) as memory:
        for number in range(1, load.rounds + 1):
            before = partial(_after, told, (number - 1) * hospitals)
            last, spent, updates = _round(strategy, number, last, site, hospitals, before)
            seconds.append(spent)
            taken += updates
    return Scale(
        hospitals=hospitals,
        rounds=load.rounds,
        updates=taken,
        seconds_a_round=sum(seconds) / len(seconds),
        server_mb=memory.peak_mb,
        megabytes=load.megabytes,
    )


def _after(told: Told, before: int, count: int) -> None:
    told(before + count)


def _round(
    strategy: Strategy, number: int, last: Result, site: "_Site", hospitals: int, told: Told
) -> tuple[Result, float, int]:
    """Return (result, seconds, updates taken) of one round."""
    begin = time.monotonic()
    body = wire_tensors(last.tensors)
    sent = Sent.of(number, body, last.tensors, last.state)
    aggregation = strategy.begin(sent)
    check = SealCheck.of({_NODE: site.key.public.to_base64()}, site.asked(number, hospitals, body))
    spent = time.monotonic() - begin
    for count in range(1, hospitals + 1):
        answer = site.answer(count, check.digest)
        begin = time.monotonic()
        reply = read_reply(check(answer))
        if not isinstance(reply, TrainReply):
            raise RunFailedError("A synthetic update was not what it should be.")
        aggregation.add(verify(f"hospital-{count:04d}", answer.tensors, sent, examples=reply.examples))
        spent += time.monotonic() - begin
        told(count)
    begin = time.monotonic()
    aggregation.close()
    return aggregation.result(), spent + time.monotonic() - begin, aggregation.updates


class _Site:
    """Every synthetic hospital: what it changes is the same noise, shifted by the hospital's number."""

    def __init__(self, values: int) -> None:
        self.key = SigningKey.generate()
        self._noise = np.random.default_rng(0).normal(0.0, _STEP, values).astype(np.float16)

    def start(self) -> Tensors:
        """Return the model before the first round."""
        return {name: np.zeros(part.shape, np.float32) for name, part in self._parts(self._noise).items()}

    def asked(self, number: int, hospitals: int, body: bytes) -> Ask:
        """Return a round's request."""
        request = TrainRequest(
            run_key="simulation",
            round=number,
            rounds=number,
            base_sha256="0" * 64,
            recipe=Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)),
            participants=hospitals,
        )
        return Ask(request, body).fresh()

    def answer(self, count: int, digest: str) -> Answer:
        """Return what hospital ``count`` says to the request of this digest, sealed."""
        update = bytes(save(self._parts(np.roll(self._noise, count * 997))))
        text = _REPLY.model_dump_json()
        return Answer(_NODE, text, update, seal=seal(self.key, digest, text, update))

    @staticmethod
    def _parts(flat: NDArray[np.float16]) -> dict[str, NDArray[np.float16]]:
        return {f"block.{number}": part for number, part in enumerate(np.array_split(flat, _TENSORS))}
