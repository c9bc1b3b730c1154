"""A round for which nobody waits any more ends between two batches, and the next one does not wait behind it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client_node.budget import read_budget
from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.ipc import Lease, Stop, serve, socket_path
from client_node.relay.exchange import Asked, answer
from client_node.trainer import TrainerServer
from client_node.training.service import TrainingService
from client_node.training.turns import LATE, NEWER, Turns
from shared.contracts.privacy import Privacy, PrivacyKind
from shared.contracts.training import Balance, CensusRequest, EvaluateRequest, Recipe, Refusal, Request, TrainRequest
from shared.crypto.signing import SigningKey
from shared.vision import backbones
from shared.vision.model import build
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES, RECIPE, make_home

BASE = base_sha256(backbones.get(RECIPE.backbone))
SHORT = RECIPE.model_copy(update={"local_epochs": 1})
NOISED = SHORT.model_copy(update={"balance": Balance.NONE, "batch_size": 32})
EIGHT = Privacy(kind=PrivacyKind.DP_SGD, epsilon=8.0, delta=1e-5, clip=1.0)
_WAIT = 60.0

pytestmark = pytest.mark.usefixtures("one_thread")


def _train(number: int = 1, *, run: str = "run-1", nonce: str = "", recipe: Recipe = SHORT) -> TrainRequest:
    return TrainRequest(
        run_key=run, round=number, rounds=3, base_sha256=BASE, recipe=recipe, participants=3, nonce=nonce
    )


def _private(number: int = 1) -> TrainRequest:
    return _train(number, recipe=NOISED).model_copy(update={"privacy": EIGHT})


EVALUATE = EvaluateRequest(run_key="run-1", base_sha256=BASE, recipe=SHORT, participants=3)


@pytest.fixture(scope="module")
def body() -> bytes:
    state = build(RECIPE.backbone, len(CLASSES)).trainable_state()
    return bytes(save({name: value.numpy().astype(np.float16) for name, value in state.items()}))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = make_home(tmp_path / "home", train=6, val=1, test=1)
    NodeHome(home).keys.mkdir()
    NodeHome(home).signing_key.write_bytes(SigningKey.generate().to_pem())
    return home


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class _Trainer:
    """A trainer that stands still in its first request until `answers`, as for an urgent smear."""

    def __init__(self, home: Path, body: bytes) -> None:
        self._turns, self._stop = Turns(), Stop()
        self._server = TrainerServer(home, stop=self._stop, turns=self._turns)
        self._urgent = Lease(home).urgent()
        self._pool = ThreadPoolExecutor(4)
        self._body = body
        self._asked: list[Future[str]] = []
        self._urgent.__enter__()

    def ask(self, request: Request, **facts: float) -> None:
        """Bring a request; return once it is worked at, waits or is answered."""
        header = {"op": "federate", "request": request.model_dump_json(), **facts}
        self._asked.append(self._pool.submit(lambda: str(self._server.handle(header, self._body)[0]["reply"])))
        _until(lambda: self._asked[-1].done() or (self._turns.busy and self._turns.open == len(self._asked)))

    def answers(self) -> list[str]:
        """Let it go on; return for each request why it was refused, or the kind of its answer."""
        self._urgent.__exit__(None, None, None)
        said = [one.result(_WAIT) for one in self._asked]
        self._pool.shutdown()
        self._stop.close()
        assert (self._turns.busy, self._turns.open) == (False, 0)
        return [Refusal.model_validate_json(text).reason if '"code"' in text else text.split('"')[3] for text in said]


@pytest.fixture
def trainer(home: Path, body: bytes) -> _Trainer:
    return _Trainer(home, body)


@pytest.mark.parametrize("newer", [_train(2), _train(1, run="run-2"), EVALUATE])
def test_round_that_is_trained_makes_way_for_a_newer_one(trainer: _Trainer, newer: Request) -> None:
    trainer.ask(_train(1), asked_at=10.0)
    trainer.ask(newer, asked_at=11.0)
    assert trainer.answers() == [NEWER, newer.kind]


def test_evaluation_of_a_stopped_run_makes_way_for_the_next_run(trainer: _Trainer) -> None:
    trainer.ask(EVALUATE, asked_at=10.0)
    trainer.ask(_train(1, run="run-2"), asked_at=11.0)
    assert trainer.answers() == [NEWER, "train"]


def test_request_that_still_waits_makes_way_too(trainer: _Trainer) -> None:
    for number in (1, 2, 3):
        trainer.ask(_train(number), asked_at=10.0 + number)
    assert trainer.answers() == [NEWER, NEWER, "train"]


def test_older_round_that_a_relay_brings_again_does_not_end_the_newer_one(trainer: _Trainer) -> None:
    trainer.ask(_train(1, run="run-2"), asked_at=11.0)
    trainer.ask(_train(3, run="run-1"), asked_at=10.0)
    assert trainer.answers() == ["train", NEWER]


def test_same_round_asked_again_waits_and_is_answered_with_the_same(trainer: _Trainer) -> None:
    """By a relay after the trainer's death, and by the centre that plays a round again."""
    trainer.ask(_train(1), asked_at=10.0)
    trainer.ask(_train(1), asked_at=10.0)
    trainer.ask(_train(1, nonce="0" * 32), asked_at=12.0)
    assert trainer.answers() == ["train"] * 3


def test_census_neither_ends_a_round_nor_is_ended(trainer: _Trainer) -> None:
    trainer.ask(_train(1), asked_at=10.0)
    trainer.ask(CensusRequest(), asked_at=11.0)
    assert trainer.answers() == ["train", "census"]


def test_round_ends_by_itself_at_its_deadline(trainer: _Trainer) -> None:
    trainer.ask(_train(1), asked_at=10.0, seconds=0.5)
    trainer.ask(_train(1, nonce="0" * 32), asked_at=11.0, seconds=_WAIT)
    time.sleep(0.6)
    assert trainer.answers() == [LATE, "train"]


def test_private_round_is_not_begun_too_late_but_ended_where_it_was_begun(home: Path, body: bytes) -> None:
    """Its update is kept: the same round asked again has it at no further cost."""
    late = _Trainer(home, body)
    late.ask(_private(), seconds=0.0)
    assert late.answers() == [LATE]
    assert read_budget(home).charges == ()
    begun = _Trainer(home, body)
    begun.ask(_private(), seconds=0.5)
    begun.ask(_private().model_copy(update={"nonce": "0" * 32}), seconds=_WAIT)
    time.sleep(0.6)
    assert begun.answers() == ["train", "train"]
    assert len(read_budget(home).charges) == 1


def test_what_an_abandoned_private_round_was_charged_stays_spent(home: Path, body: bytes) -> None:
    service = TrainingService(home)

    def once_charged() -> str:
        return NEWER if read_budget(home).charges else ""

    reply, update = service.exchange(_private(1), body, abandoned=once_charged)
    assert isinstance(reply, Refusal)
    assert (reply.code, reply.reason, update) == ("conflict", NEWER, b"")
    before = read_budget(home)
    assert [(charge.round, charge.released) for charge in before.charges] == [(1, False)]
    assert before.epsilon > 0
    reply, _ = service.exchange(_private(2), body)
    assert reply.kind == "train"
    after = read_budget(home)
    assert [(charge.round, charge.released) for charge in after.charges] == [(1, False), (2, True)]
    assert after.epsilon > before.epsilon
    assert after.charges[1].run_epsilon > before.charges[0].run_epsilon


@contextmanager
def _served(home: Path) -> Iterator[Turns]:
    turns, stop = Turns(), Stop()
    path = socket_path(home, "trainer")
    handler = TrainerServer(home, stop=stop, turns=turns).handle
    thread = threading.Thread(target=serve, args=(path, handler), kwargs={"stop": stop})
    thread.start()
    _until(path.exists)
    try:
        yield turns
    finally:
        stop.set()
        thread.join()
        stop.close()


def test_abandoned_round_stands_in_the_hospitals_ledger(home: Path, body: bytes) -> None:
    """Through the relay: who asked hears it, and so does the hospital."""

    def ask(number: int) -> str:
        asked = Asked(_train(number).model_dump_json(), body, asked_at=10.0 + number, ends=time.monotonic() + _WAIT)
        return answer(home, lambda: asked, (TrainRequest,)).text

    with _served(home) as turns, ThreadPoolExecutor(2) as pool:
        with Lease(home).urgent():
            first = pool.submit(ask, 1)
            _until(lambda: turns.busy)
            second = pool.submit(ask, 2)
            _until(lambda: turns.open == 2)
        assert Refusal.model_validate_json(first.result(_WAIT)) == Refusal(code="conflict", reason=NEWER)
        assert '"kind":"train"' in second.result(_WAIT)
    lines = {(line.kind, line.subject, line.what, line.note) for line in Ledger(home).entries()}
    assert lines == {
        ("refusal", "run-1", "round 1", f"conflict: {NEWER}"),
        ("update", "run-1", "round 2", ""),
    }
