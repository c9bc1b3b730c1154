"""The relay between Flower and the trainer: hostile requests, a missing trainer, odd answers."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load, save

from client_node import ipc
from client_node.cases.ledger import Ledger
from client_node.relay.app import app
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, Refusal, SiteMetrics, TrainReply, TrainRequest
from shared.tensors import ARRAY_NAME, RECORD_ARRAYS, RECORD_CONFIG, STYPE

# Flower sets these in every process it starts for a message.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
REQUEST = TrainRequest(
    run_key="run",
    round=1,
    rounds=2,
    base_sha256="0" * 64,
    recipe=Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)),
    participants=2,
)
BODY = bytes(save({"w": np.ones((2, 2), np.float16)}))
REPLY = TrainReply(
    examples=7,
    train_loss=0.5,
    received=SiteMetrics(n=3, loss=1.0, accuracy=0.5, macro_f1=0.5),
    seconds=0.1,
    manifest_sha256="0" * 64,
)


def _message(request: object = None, body: bytes = BODY, kind: str = MessageType.TRAIN, stype: str = STYPE) -> Message:
    text = REQUEST.model_dump_json() if request is None else request
    content = RecordDict({RECORD_CONFIG: ConfigRecord({"request": text})})  # type: ignore[dict-item]  # hostile on purpose
    if body:
        content[RECORD_ARRAYS] = ArrayRecord({ARRAY_NAME: Array("uint8", (len(body),), stype, body)})
    return Message(content, dst_node_id=1, message_type=kind)


def _ask(home: Path, message: Message) -> tuple[str, bytes]:
    context = Context(
        run_id=1, node_id=1, node_config={"home": str(home)}, state=RecordDict(), run_config={"home": "/"}, series_id=1
    )
    # A message that travelled has an id; the reply refers to it.
    message.metadata.__dict__["_message_id"] = "m"
    reply = app(message, context)
    content = reply.content
    arrays = content.array_records.get(RECORD_ARRAYS)
    return str(content.config_records[RECORD_CONFIG]["reply"]), arrays[ARRAY_NAME].data if arrays else b""


@contextmanager
def _trainer(home: Path, handler: ipc.Handler) -> Iterator[None]:
    stop = ipc.Stop()
    path = ipc.socket_path(home, "trainer")
    thread = threading.Thread(target=ipc.serve, args=(path, handler), kwargs={"stop": stop})
    thread.start()
    while not path.exists():
        assert thread.is_alive()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        stop.close()


def test_round_reaches_the_trainer_and_its_answer_comes_back(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []

    def handler(header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        seen.append(header)
        assert body == BODY
        return {"reply": REPLY.model_dump(mode="json")}, bytes(save({"w": load(body)["w"] + 1}))

    with _trainer(tmp_path, handler):
        text, tensors = _ask(tmp_path, _message())
    assert TrainReply.model_validate_json(text) == REPLY
    np.testing.assert_array_equal(load(tensors)["w"], np.full((2, 2), 2, np.float16))
    assert seen == [{"op": "federate", "request": REQUEST.model_dump(mode="json")}]
    [entry] = Ledger(tmp_path).entries()
    assert (entry.kind, entry.subject, entry.what, entry.size) == ("update", "run", "round 1", len(text) + len(tensors))


def test_update_that_cannot_be_written_down_does_not_leave(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)

    def handler(_header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        return {"reply": REPLY.model_dump(mode="json")}, body

    with _trainer(tmp_path, handler):
        text, tensors = _ask(tmp_path, _message())
    assert Refusal.model_validate_json(text).kind == "refusal"
    assert tensors == b""


def test_missing_trainer_is_a_refusal_at_once(tmp_path: Path) -> None:
    text, tensors = _ask(tmp_path, _message())
    assert Refusal.model_validate_json(text).code == "service_unavailable"
    assert tensors == b""


def test_unknown_home_is_a_refusal(tmp_path: Path) -> None:
    text, _ = _ask(tmp_path / "absent", _message())
    assert Refusal.model_validate_json(text).code == "service_unavailable"


@pytest.mark.parametrize(
    "message",
    [
        _message("not json"),
        _message(5),
        _message('{"kind":"census","extra":1}'),
        _message(REQUEST.model_dump_json().replace('"round":1', '"round":0')),
        _message("x" * 100_000),
        _message(kind=MessageType.EVALUATE),
        _message(body=b"garbage"),
        _message(stype="numpy.ndarray"),
        _message(body=b""),
    ],
)
def test_hostile_message_never_reaches_the_trainer(tmp_path: Path, message: Message) -> None:
    def handler(header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        raise AssertionError("reached")

    with _trainer(tmp_path, handler):
        text, _ = _ask(tmp_path, message)
    assert Refusal.model_validate_json(text).code == "data_invalid"


@pytest.mark.parametrize(
    ("answer", "tensors"),
    [
        ({}, BODY),
        ({"reply": {"kind": "evaluate"}}, BODY),
        ({"reply": REPLY.model_dump(mode="json")}, b""),
        ({"reply": REPLY.model_dump(mode="json")}, bytes(save({"w": np.ones(9, np.float16)}))),
    ],
)
def test_odd_answer_of_the_trainer_does_not_leave(tmp_path: Path, answer: ipc.Header, tensors: bytes) -> None:
    with _trainer(tmp_path, lambda _header, _body: (answer, tensors)):
        text, sent = _ask(tmp_path, _message())
    assert Refusal.model_validate_json(text).code == "data_invalid"
    assert sent == b""


def test_refusal_of_the_policy_passes_through(tmp_path: Path) -> None:
    refusal = Refusal(code="policy_refused", reason="Too few hospitals take part.")
    with _trainer(tmp_path, lambda _header, _body: ({"reply": refusal.model_dump(mode="json")}, b"")):
        text, _ = _ask(tmp_path, _message())
    assert Refusal.model_validate_json(text) == refusal
    [entry] = Ledger(tmp_path).entries()
    assert (entry.kind, entry.size, entry.note) == ("refusal", 0, "policy_refused")


def test_relay_imports_neither_torch_nor_image_readers() -> None:
    code = (
        "import sys, client_node.relay.app\n"
        "heavy = ('torch', 'timm', 'PIL', 'onnxruntime', 'skimage', 'sqlmodel')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
