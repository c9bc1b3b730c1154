"""The relay against a hostile centre: whatever comes, it answers, and nothing unsound reaches the trainer."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from safetensors.numpy import load, save

from client_node import ipc
from client_node.home import NodeHome
from client_node.policy import load_policy
from client_node.relay import exchange
from client_node.relay.app import app
from client_node.relay.exchange import Asked, answer
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import Privacy
from shared.contracts.training import (
    CensusRequest,
    DryRunRequest,
    EvaluateRequest,
    Recipe,
    Refusal,
    Reply,
    Request,
    TrainRequest,
)
from shared.crypto.signing import SigningKey
from shared.tensors import ARRAY_NAME, CONFIG_REPLY, CONFIG_REQUEST, RECORD_ARRAYS, RECORD_CONFIG, STYPE
from tests.hostile import bodies, texts, worst_headers

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))
PRIVATE = Privacy.model_validate({"kind": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0})
REQUESTS: tuple[Request, ...] = (
    TrainRequest(
        run_key="run", round=1, rounds=2, base_sha256="0" * 64, recipe=RECIPE, participants=2, privacy=PRIVATE
    ),
    EvaluateRequest(run_key="run", base_sha256="0" * 64, recipe=RECIPE, participants=2),
    CensusRequest(nonce="0" * 32),
    DryRunRequest(rounds=2, base_sha256="0" * 64, recipe=RECIPE, participants=2),
)
POLICY = "[training]\nmost_epochs = 6\nmost_rounds = 3\n"
SHAPES = {"w": (2, 2), "head.bias": (2,)}
MOST_MEMORY = 64 * 1024 * 1024
"""Bytes that reading a request may take beyond the message itself."""
KINDS = (MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY)
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Trainer:
    """Answers on the node's socket, and notes what should never have come so far."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.reached = 0
        self.unsound: list[str] = []

    def answer(self, header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        self.reached += 1
        try:
            request = _REQUEST.validate_json(header["request"])
            if (reason := load_policy(self.home).why_not(request, size=len(body))) is not None:
                raise ValueError(reason)  # noqa: TRY301 - noted below like whatever else is wrong
            assert set(header) == {"op", "request", "asked_at", "seconds"}
            assert all(isinstance(header[name], float | None) for name in ("asked_at", "seconds"))
            assert all(np.asarray(array).nbytes <= len(body) for array in load(body).values()) if body else True
        except Exception as error:  # noqa: BLE001 - anything at all is a finding
            self.unsound.append(f"{header}: {error!r}")
        refusal = Refusal(code="nothing_to_do", reason="The trainer of the tests.")
        return {"reply": refusal.model_dump_json(), "seal": ""}, b""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    home = NodeHome(tmp_path_factory.mktemp("relay"))
    home.keys.mkdir()
    home.signing_key.write_bytes(SigningKey.generate().to_pem())
    home.policy_file.write_text(POLICY)
    trainer, stop = Trainer(home.path), ipc.Stop()
    path = ipc.socket_path(home.path, "trainer")
    thread = threading.Thread(target=ipc.serve, args=(path, trainer.answer), kwargs={"stop": stop})
    thread.start()
    while not path.exists():
        assert thread.is_alive()
    yield trainer
    stop.set()
    thread.join()
    stop.close()
    assert home.policy_file.read_text() == POLICY  # nothing of all this changed it


def _send(trainer: Trainer, content: RecordDict, kind: str) -> Reply:
    message = Message(content, dst_node_id=1, message_type=kind)
    message.metadata.__dict__["_message_id"] = "m"
    context = Context(
        run_id=1, node_id=1, node_config={"home": str(trainer.home)}, state=RecordDict(), run_config={}, series_id=1
    )
    reply = app(message, context).content
    assert RECORD_ARRAYS not in reply  # this trainer never trains
    return _REPLY.validate_json(str(reply.config_records[RECORD_CONFIG][CONFIG_REPLY]))


_texts = st.one_of([texts(request.model_dump(mode="json")) for request in REQUESTS])
_configs: st.SearchStrategy[Any] = st.one_of(  # Any: whatever a ConfigRecord takes
    _texts.map(lambda text: {CONFIG_REQUEST: text}),
    _texts.map(lambda text: {CONFIG_REQUEST: text, "home": "/etc"}),
    st.dictionaries(
        st.sampled_from([CONFIG_REQUEST, "reply", ""]),
        st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=50), st.lists(st.integers(0, 9), max_size=3)),
        max_size=2,
    ),
)


@st.composite
def contents(draw: st.DrawFn) -> RecordDict:
    """Return a message's records: as agreed, or some missing, surplus, or of another type."""
    content = RecordDict()
    if draw(st.integers(0, 9)):
        content[RECORD_CONFIG] = ConfigRecord(draw(_configs))
    if draw(st.booleans()):
        body = draw(bodies(SHAPES))
        stype = draw(st.sampled_from([STYPE, STYPE, STYPE, "numpy.ndarray", ""]))
        name = draw(st.sampled_from([ARRAY_NAME, ARRAY_NAME, ARRAY_NAME, "other", "../x"]))
        content[RECORD_ARRAYS] = ArrayRecord({name: Array("uint8", (len(body),), stype, body)})
    if not draw(st.integers(0, 9)):
        content[draw(st.sampled_from(["more", RECORD_CONFIG, RECORD_ARRAYS]))] = MetricRecord({"a": 1})
    return content


@FUZZ
@given(content=contents(), kind=st.sampled_from(KINDS))
def test_any_message_is_answered_and_none_that_is_unsound_reaches_the_trainer(
    trainer: Trainer, content: RecordDict, kind: str
) -> None:
    before = trainer.reached
    reply = _send(trainer, content, kind)
    assert trainer.unsound == []
    assert reply.kind in ("refusal", "dry-run")
    if isinstance(reply, Refusal) and trainer.reached == before:
        assert reply.code in ("data_invalid", "policy_refused")


@FUZZ
@given(text=_texts, body=bodies(SHAPES) | st.just(b""), kind=st.sampled_from([type(request) for request in REQUESTS]))
def test_any_request_is_answered_without_an_inner_failure(trainer: Trainer, text: str, body: bytes, kind: type) -> None:
    given_ = answer(trainer.home, lambda: Asked(text, body), (kind,))
    reply = _REPLY.validate_json(given_.text)
    assert trainer.unsound == []
    assert given_.tensors == b""
    if isinstance(reply, Refusal):
        assert reply.code in ("data_invalid", "policy_refused", "nothing_to_do")


def test_the_sound_ones_do_reach_the_trainer(trainer: Trainer) -> None:
    before = trainer.reached
    for request in REQUESTS:
        needs = isinstance(request, TrainRequest | EvaluateRequest)
        body = bytes(save({name: np.zeros(shape, np.float16) for name, shape in SHAPES.items()})) if needs else b""
        answer(trainer.home, partial(Asked, request.model_dump_json(), body), (type(request),))
    assert trainer.reached - before == len(REQUESTS)
    assert trainer.unsound == []


_SOUND = REQUESTS[0].model_dump_json()
_COSTLY_TEXTS = [
    "[" * 60_000,
    '{"kind":"train","recipe":' * 2_000,
    json.dumps({**json.loads(_SOUND), "more": ["x"] * 12_000}),
    json.dumps([[]] * 15_000),
    json.dumps({str(number): 0 for number in range(6_000)}),
    _SOUND.replace('"round":1', '"round":' + "1" * 60_000),
    "x" * 10_000_000,
]


@pytest.mark.parametrize("number", range(len(_COSTLY_TEXTS) + len(worst_headers())))
def test_reading_takes_bounded_memory(trainer: Trainer, number: int) -> None:
    costly = [Asked(text, b"") for text in _COSTLY_TEXTS] + [Asked(_SOUND, body) for body in worst_headers()]
    asked = costly[number]
    tracemalloc.start()
    try:
        reply = _REPLY.validate_json(answer(trainer.home, lambda: asked, (TrainRequest,)).text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(reply, Refusal)
    assert peak < MOST_MEMORY
    assert len(asked.text) > exchange.MAX_REQUEST or reply.code == "data_invalid"


def test_large_tensors_are_not_copied_before_they_are_refused(trainer: Trainer) -> None:
    body = bytes(save({"w": np.zeros((4000, 4000), np.float16)}))
    (trainer.home / "policy.toml").write_text("[training]\nmost_megabytes = 1\n")
    tracemalloc.start()
    try:
        reply = _REPLY.validate_json(answer(trainer.home, lambda: Asked(_SOUND, body), (TrainRequest,)).text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        (trainer.home / "policy.toml").write_text(POLICY)
    assert isinstance(reply, Refusal)
    assert reply.code == "policy_refused"
    assert peak < len(body) // 4
