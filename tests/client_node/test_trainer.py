"""The resident trainer as a process: it answers, outlives bad calls and ends on SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from client_node.home import NodeHome
from client_node.ipc import call, socket_path
from shared.contracts.errors import DataInvalidError, ServiceUnavailableError, UsageError
from shared.contracts.training import Refusal, TrainReply, TrainRequest
from shared.crypto.signing import SigningKey
from shared.seal import check_seal, request_digest
from shared.vision import backbones
from shared.vision.model import build
from shared.vision.weights import base_sha256
from tests.client_node.training.site import CLASSES, RECIPE, make_home

KEY = SigningKey.generate()
REQUEST = TrainRequest(
    run_key="run-1",
    round=1,
    rounds=1,
    base_sha256=base_sha256(backbones.get(RECIPE.backbone)),
    recipe=RECIPE,
    participants=3,
).model_dump_json()
HEADER = {"op": "federate", "request": REQUEST}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    home = make_home(tmp_path_factory.mktemp("trainer") / "home", train=6, val=1, test=0)
    NodeHome(home).keys.mkdir()
    NodeHome(home).signing_key.write_bytes(KEY.to_pem())
    with (home / "trainer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "client_node.trainer", "--home", str(home)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            yield process, socket_path(home, "trainer")
        finally:
            process.kill()
            process.wait()


def test_trainer_lives_through_good_and_bad_calls(trainer: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = trainer
    end = time.monotonic() + 60
    while True:
        try:
            assert call(path, {"op": "ping"})[0] == {"ok": True, "busy": False}
            break
        except ServiceUnavailableError:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
    with pytest.raises(UsageError):
        call(path, {"op": "launch"})
    with pytest.raises(DataInvalidError):
        call(path, {"op": "federate", "request": {"kind": "train"}})
    with pytest.raises(DataInvalidError):
        call(path, {"op": "federate", "request": '{"kind": "train"}'})
    answer, tensors = call(path, HEADER, b"not tensors at all")
    assert Refusal.model_validate_json(answer["reply"]).code == "data_invalid"
    assert tensors == b""
    answer, tensors = call(path, HEADER)
    assert Refusal.model_validate_json(answer["reply"]).code == "model_invalid"
    assert tensors == b""

    state = build(RECIPE.backbone, len(CLASSES)).trainable_state()
    sent = {name: value.numpy().astype(np.float16) for name, value in state.items()}
    answer, tensors = call(path, HEADER, save(sent), timeout=120)
    assert TrainReply.model_validate_json(answer["reply"]).examples == 18
    check_seal(answer["seal"], KEY.public, request_digest(REQUEST, save(sent)), answer["reply"], tensors)
    assert {name: array.shape for name, array in load(tensors).items()} == {
        name: array.shape for name, array in sent.items()
    }

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert not path.exists()
