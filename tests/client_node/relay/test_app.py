"""The relay between Flower and the trainer: hostile requests, a missing trainer, odd answers."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load, save

from client_node import ipc
from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.policy import load_policy
from client_node.relay import exchange
from client_node.relay.app import app
from shared.contracts.errors import SignatureInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.training import (
    DryRunReply,
    DryRunRequest,
    Recipe,
    Refusal,
    SiteMetrics,
    TensorForm,
    TrainReply,
    TrainRequest,
)
from shared.crypto.signing import SigningKey
from shared.packing import Reference, pack
from shared.seal import check_seal, request_digest, seal
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
KEY = SigningKey.generate()
BODY = bytes(save({"w": np.ones((2, 2), np.float16)}))
REPLY = TrainReply(
    examples=7,
    train_loss=0.5,
    received=SiteMetrics(n=3, loss=1.0, accuracy=0.5, macro_f1=0.5),
    seconds=0.1,
    manifest_sha256="0" * 64,
)


PACKED = REQUEST.model_copy(update={"form": TensorForm.PACKED})
NOTHING = Reference.of({"w": np.zeros((2, 2), np.float32)})
PACKED_BODY = pack({"w": np.ones((2, 2), np.float32)}, NOTHING)
DRY_RUN = DryRunRequest(rounds=2, base_sha256="0" * 64, recipe=REQUEST.recipe, participants=2, tensor_bytes=1000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home with what the relay reads: a policy and the node's key."""
    place = NodeHome(tmp_path)
    place.keys.mkdir()
    place.signing_key.write_bytes(KEY.to_pem())
    place.policy_file.write_text("")
    return tmp_path


def _message(request: object = None, body: bytes = BODY, kind: str = MessageType.TRAIN, stype: str = STYPE) -> Message:
    text = REQUEST.model_dump_json() if request is None else request
    content = RecordDict({RECORD_CONFIG: ConfigRecord({"request": text})})  # type: ignore[dict-item]  # hostile on purpose
    if body:
        content[RECORD_ARRAYS] = ArrayRecord({ARRAY_NAME: Array("uint8", (len(body),), stype, body)})
    return Message(content, dst_node_id=1, message_type=kind)


def _surplus(**records: ArrayRecord | ConfigRecord | MetricRecord) -> Message:
    message = _message()
    for name, record in records.items():
        message.content[name] = record
    return message


def _send(home: Path, message: Message) -> RecordDict:
    context = Context(
        run_id=1, node_id=1, node_config={"home": str(home)}, state=RecordDict(), run_config={"home": "/"}, series_id=1
    )
    # A message that travelled has an id; the reply refers to it.
    message.metadata.__dict__["_message_id"] = "m"
    return app(message, context).content


def _ask(home: Path, message: Message) -> tuple[str, bytes]:
    content = _send(home, message)
    arrays = content.array_records.get(RECORD_ARRAYS)
    return str(content.config_records[RECORD_CONFIG]["reply"]), arrays[ARRAY_NAME].data if arrays else b""


def _signed(reply: TrainReply | Refusal | DryRunReply, tensors: bytes = b"", text: str = "") -> ipc.Header:
    """Return what a trainer that was asked `REQUEST` says."""
    said = reply.model_dump_json()
    digest = request_digest(text or REQUEST.model_dump_json(), BODY)
    return {"reply": said, "seal": seal(KEY, digest, said, tensors)}


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


def test_round_reaches_the_trainer_and_its_answer_comes_back(home: Path) -> None:
    seen: list[dict[str, object]] = []

    def handler(header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        seen.append(header)
        assert body == BODY
        update = bytes(save({"w": load(body)["w"] + 1}))
        return _signed(REPLY, update), update

    message = _message()
    with _trainer(home, handler):
        content = _send(home, message)
    text, signed = (str(content.config_records[RECORD_CONFIG][key]) for key in ("reply", "seal"))
    tensors = content.array_records[RECORD_ARRAYS][ARRAY_NAME].data
    assert TrainReply.model_validate_json(text) == REPLY
    np.testing.assert_array_equal(load(tensors)["w"], np.full((2, 2), 2, np.float16))
    check_seal(signed, KEY.public, request_digest(REQUEST.model_dump_json(), BODY), text, tensors)
    left = seen[0].pop("seconds")
    assert isinstance(left, float)
    assert 0 < message.metadata.ttl - left < 30
    assert seen == [{"op": "federate", "request": REQUEST.model_dump_json(), "asked_at": message.metadata.created_at}]
    [entry] = Ledger(home).entries()
    assert (entry.kind, entry.subject, entry.what, entry.size) == ("update", "run", "round 1", len(text) + len(tensors))


@pytest.mark.parametrize(("update", "leaves"), [(PACKED_BODY, True), (BODY, False)])
def test_packed_round_is_answered_packed_or_not_at_all(home: Path, update: bytes, leaves: bool) -> None:
    text = PACKED.model_dump_json()
    with _trainer(home, lambda _header, _body: (_signed(REPLY, update, text), update)):
        said, tensors = _ask(home, _message(text, PACKED_BODY))
    assert tensors == (update if leaves else b"")
    assert leaves or Refusal.model_validate_json(said).code == "data_invalid"


def test_update_that_cannot_be_written_down_does_not_leave(home: Path) -> None:
    (home / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with _trainer(home, lambda _header, body: (_signed(REPLY, body), body)):
        text, tensors = _ask(home, _message())
    assert Refusal.model_validate_json(text).kind == "refusal"
    assert tensors == b""


def test_update_larger_than_the_policy_allows_does_not_leave(home: Path) -> None:
    (home / "policy.toml").write_text("[training]\nmost_megabytes = 1\n")
    asked, large = np.zeros(300_000, np.float16), np.zeros(300_000, np.float32)
    with _trainer(home, lambda _header, _body: (_signed(REPLY), bytes(save({"w": large})))):
        text, tensors = _ask(home, _message(body=bytes(save({"w": asked}))))
    assert (
        Refusal.model_validate_json(text).reason == "This hospital's policy allows 1 MB of tensors a message at most."
    )
    assert tensors == b""
    assert [(entry.kind, entry.subject) for entry in Ledger(home).entries()] == [("refusal", "run")]


def test_missing_trainer_is_a_refusal_at_once(home: Path) -> None:
    text, tensors = _ask(home, _message())
    assert Refusal.model_validate_json(text).code == "service_unavailable"
    assert tensors == b""
    [entry] = Ledger(home).entries()
    assert (entry.kind, entry.subject, entry.what) == ("refusal", "run", "round 1")
    assert entry.note.startswith("service_unavailable: ")


def test_unknown_home_is_a_refusal(home: Path) -> None:
    text, _ = _ask(home / "absent", _message())
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
        _message(DRY_RUN.model_dump_json(), kind=MessageType.QUERY),  # with tensors that it does not need
        _message(body=b"garbage"),
        _message(stype="numpy.ndarray"),
        _message(body=b""),
        _message(PACKED.model_dump_json()),
        _message(body=PACKED_BODY),
        _message(PACKED.model_dump_json(), PACKED_BODY.replace(b"HVPACK1", b"HVPACK9")),
        _message(PACKED.model_dump_json(), PACKED_BODY[:20]),
        _message(REQUEST.model_dump_json().replace('"nonce"', '"form":"zip","nonce"')),
        _surplus(more=ConfigRecord({"request": "{}"})),
        _surplus(more=MetricRecord({"a": 1})),
        _surplus(arrays=MetricRecord({"tensors": 1})),
        _surplus(config=ConfigRecord({"request": REQUEST.model_dump_json(), "run": "again"})),
    ],
)
def test_hostile_message_never_reaches_the_trainer(home: Path, message: Message) -> None:
    reached: list[ipc.Header] = []

    def handler(header: ipc.Header, body: bytes) -> tuple[ipc.Header, bytes]:
        reached.append(header)
        return {}, b""

    with _trainer(home, handler):
        text, _ = _ask(home, message)
    assert Refusal.model_validate_json(text).code == "data_invalid"
    assert reached == []
    assert [(entry.kind, entry.size) for entry in Ledger(home).entries()] == [("refusal", 0)]


@pytest.mark.parametrize(
    ("answer", "tensors"),
    [
        ({}, BODY),
        ({"reply": '{"kind": "evaluate"}', "seal": ""}, BODY),
        ({"reply": REPLY.model_dump(mode="json"), "seal": ""}, BODY),
        ({"reply": REPLY.model_dump_json()}, BODY),
        (_signed(DryRunReply(takes_part=True)), BODY),
        (_signed(REPLY), b""),
        (_signed(REPLY), bytes(save({"w": np.ones(9, np.float16)}))),
    ],
)
def test_odd_answer_of_the_trainer_does_not_leave(home: Path, answer: ipc.Header, tensors: bytes) -> None:
    with _trainer(home, lambda _header, _body: (answer, tensors)):
        text, sent = _ask(home, _message())
    assert Refusal.model_validate_json(text).code == "data_invalid"
    assert sent == b""


def test_policy_refuses_before_the_trainer_is_asked_and_says_why_on_both_sides(home: Path) -> None:
    (home / "policy.toml").write_text("[training]\nleast_participants = 3\n")
    content = _send(home, _message())
    text, signed = (str(content.config_records[RECORD_CONFIG][key]) for key in ("reply", "seal"))
    reason = "This hospital takes part only with 3 hospitals or more."
    assert Refusal.model_validate_json(text) == Refusal(code="policy_refused", reason=reason)
    check_seal(signed, KEY.public, request_digest(REQUEST.model_dump_json(), BODY), text, b"")
    [entry] = Ledger(home).entries()
    assert (entry.kind, entry.size, entry.note) == ("refusal", 0, f"policy_refused: {reason}")


def test_refusal_of_the_trainers_policy_stands_once_in_the_ledger(home: Path) -> None:
    (home / "policy.toml").write_text("[training]\nleast_examples = 30\n")

    def trainer(_header: ipc.Header, _body: bytes) -> tuple[ipc.Header, bytes]:
        load_policy(home).check_train(REQUEST, 29)  # the socket carries the error as its code and message
        raise AssertionError("allowed")

    with _trainer(home, trainer):
        text, _ = _ask(home, _message())
    assert Refusal.model_validate_json(text).reason == "This hospital trains only with 30 labelled cells or more."
    assert [entry.kind for entry in Ledger(home).entries()] == ["refusal"]


def test_broken_policy_allows_nothing_and_its_fault_stays_in_the_hospital(home: Path) -> None:
    (home / "policy.toml").write_text('[training]\nhours = "Station 3, ask Dr. Lind"\n')
    with _trainer(home, lambda _header, body: (_signed(REPLY, body), body)):
        text, tensors = _ask(home, _message())
    refusal = Refusal.model_validate_json(text)
    assert (refusal.code, tensors) == ("config", b"")
    assert "Lind" not in text
    assert "hours" not in text
    assert "training.hours" in Ledger(home).entries()[0].note


def test_dry_run_is_refused_by_the_policy_without_the_trainer_and_leaves_a_line(home: Path) -> None:
    (home / "policy.toml").write_text('[training]\nbackbones = ["resnet50"]\n')
    text, _ = _ask(home, _message(DRY_RUN.model_dump_json(), body=b"", kind=MessageType.QUERY))
    reply = DryRunReply.model_validate_json(text)
    assert (reply.takes_part, reply.examples) == (False, None)
    assert reply.reason == "This hospital's policy does not allow the backbone tf_efficientnet_lite0."
    assert [(entry.kind, entry.subject, entry.size) for entry in Ledger(home).entries()] == [
        ("answer", "dry-run", len(text))
    ]


def test_dry_run_that_the_policy_allows_is_the_trainers_to_answer(home: Path) -> None:
    said = DryRunReply(takes_part=True, examples=40)
    with _trainer(home, lambda header, _body: (_signed(said, text=header["request"]), b"")):
        text, _ = _ask(home, _message(DRY_RUN.model_dump_json(), body=b"", kind=MessageType.QUERY))
    assert DryRunReply.model_validate_json(text) == said


def test_answer_without_a_key_is_not_given(home: Path) -> None:
    (home / "keys" / "signing.pem").unlink()
    text, _ = _ask(home, _message("nonsense"))
    assert Refusal.model_validate_json(text).code == "data_invalid"
    with pytest.raises(SignatureInvalidError):
        check_seal("", KEY.public, "0" * 64, text, b"")


def test_relay_imports_neither_torch_nor_image_readers() -> None:
    code = (
        "import sys, client_node.relay.app\n"
        "heavy = ('torch', 'timm', 'PIL', 'onnxruntime', 'skimage', 'sqlmodel')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["train", "dry-run"])
def test_trainer_that_dies_is_waited_for_in_a_round_and_not_for_a_question(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The first trainer closes the connection in the middle of its work, as a killed one does; a second comes up."""
    monkeypatch.setattr(exchange, "_TRAINER_BACK", 20.0)
    asked: list[str] = []
    path = ipc.socket_path(home, "trainer")
    path.parent.mkdir(parents=True, exist_ok=True)
    died = threading.Event()

    def dies() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            connection, _ = listener.accept()
            asked.append("first")
            path.unlink()
            connection.close()
        died.set()

    def second(header: ipc.Header, _body: bytes) -> tuple[ipc.Header, bytes]:
        if header["op"] == "ping":
            return {"ok": True}, b""
        asked.append("second")
        return _signed(REPLY, BODY), BODY

    def comes_up() -> None:
        died.wait(20)
        with _trainer(home, second):
            over.wait(30)

    over = threading.Event()
    threads = [threading.Thread(target=dies), threading.Thread(target=comes_up)]
    for thread in threads:
        thread.start()
    while not path.exists():
        time.sleep(0.01)
    try:
        if kind == "train":
            reply, _ = _ask(home, _message())
            assert TrainReply.model_validate_json(reply) == REPLY
        else:
            reply, _ = _ask(home, _message(DRY_RUN.model_dump_json(), body=b"", kind=MessageType.QUERY))
            assert Refusal.model_validate_json(reply).code == "service_unavailable"
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert asked == (["first", "second"] if kind == "train" else ["first"])
