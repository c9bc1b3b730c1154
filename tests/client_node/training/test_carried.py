"""Rounds whose tensors travel packed, at the node: what it reads, what it answers, what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from client_node.training.model_store import ModelStore
from client_node.training.service import TrainingService
from server.federation.strategies.tensors import read_tensors
from shared.contracts.privacy import Privacy
from shared.contracts.training import Balance, Refusal, TensorForm, TrainReply, TrainRequest
from shared.packing import Reference, Tensors, pack, pretrained, unpack
from shared.vision import backbones
from shared.vision.export import export_base
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES, RECIPE, make_home

SHORT = RECIPE.model_copy(update={"local_epochs": 1, "views": 1, "balance": Balance.NONE, "batch_size": 32})
REQUEST = TrainRequest(
    run_key="run-1", round=1, rounds=2, base_sha256=base_sha256(backbones.get(RECIPE.backbone)), recipe=SHORT,
    participants=3, form=TensorForm.PACKED,
)  # fmt: skip
EIGHT = Privacy.model_validate({"kind": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0})

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What the centre packs against: it knows a model by its exported tensors only."""
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    export_base(RECIPE.backbone, len(CLASSES), file)
    return pretrained(read_tensors(file.read_bytes()))


@pytest.fixture(scope="module")
def models() -> ModelStore:
    return ModelStore()


@pytest.fixture(scope="module")
def body(base: Reference) -> bytes:
    """A round's model: the pretrained one with a head."""
    random = np.random.default_rng(0)
    head = {name: random.normal(0.0, 0.01, array.shape) for name, array in base.tensors.items() if "head" in name}
    return pack({**base.tensors, **{name: np.asarray(array, np.float32) for name, array in head.items()}}, base)


def test_both_sides_have_the_same_reference_to_the_bit(base: Reference, models: ModelStore) -> None:
    own = models.reference(SHORT, REQUEST.base_sha256)
    assert own.sha256 == base.sha256
    assert {name for name, array in own.tensors.items() if not array.any()} == {
        name for name in own.tensors if not name.startswith("tail.")
    }


def test_packed_round_is_answered_packed_by_what_was_received(
    tmp_path: Path, base: Reference, models: ModelStore, body: bytes
) -> None:
    service = TrainingService(make_home(tmp_path / "h"), models=models)
    reply, update = service.exchange(REQUEST, body)
    assert isinstance(reply, TrainReply), reply
    received = unpack(body, base)
    told = unpack(update, Reference.of(received))
    assert any(not np.array_equal(told[name], received[name]) for name in told if name.startswith("tail."))
    # No marked fields: the finder is as it was received, to the bit.
    assert all(np.array_equal(told[name], received[name]) for name in told if name.startswith("finder."))
    # A node that was installed anew reads the same round, and answers it the same.
    again = TrainingService(make_home(tmp_path / "new")).exchange(REQUEST, body)[1]
    assert again == update
    plain, exact = service.handle(REQUEST.model_copy(update={"form": TensorForm.HALF}), received)
    assert isinstance(plain, TrainReply)
    whole = {name: array.astype(np.float32) for name, array in exact.items()}
    assert _apart(told, whole) < 0.04 * _apart(whole, received)


def test_private_round_that_was_lost_is_sent_again_bit_by_bit(tmp_path: Path, models: ModelStore, body: bytes) -> None:
    home = make_home(tmp_path / "h")
    request = REQUEST.model_copy(update={"privacy": EIGHT, "rounds": 1})
    first, update = TrainingService(home, models=models).exchange(request, body)
    assert isinstance(first, TrainReply), first
    again, same = TrainingService(home, models=models).exchange(request, body)
    assert (again, same) == (first, update)


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, models: ModelStore, body: bytes) -> None:
    service = TrainingService(make_home(tmp_path / "h"), models=models)
    reply, nothing = service.exchange(REQUEST, body.replace(b"HVPACK1", b"HVPACK2"))
    assert reply == Refusal(
        code="data_invalid", reason="The tensors are packed by another version; update the older side's software."
    )
    assert nothing == b""
    other = Reference.of({name: array + np.float32(1e-3) for name, array in models.reference(
        SHORT, REQUEST.base_sha256).tensors.items()})  # fmt: skip
    reply, _ = service.exchange(REQUEST, pack(other.tensors, other))
    assert isinstance(reply, Refusal)
    assert "packed against others" in reply.reason


def test_megabytes_of_the_policy_are_those_that_travel(tmp_path: Path, models: ModelStore, body: bytes) -> None:
    home = make_home(tmp_path / "h", policy="[training]\nmost_megabytes = 1\n")
    assert len(body) < 1_000_000
    reply, update = TrainingService(home, models=models).exchange(REQUEST, body)
    assert isinstance(reply, TrainReply), reply
    assert len(update) < 1_000_000


def _apart(one: Tensors, other: Tensors) -> float:
    return float(sum(np.linalg.norm(one[name] - other[name]) ** 2 for name in one) ** 0.5)
