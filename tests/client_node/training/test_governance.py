"""The trainer under the hospital's policy: what it leaves out, refuses, and says to a dry run."""

from pathlib import Path

import pytest

from client_node.cases.ledger import Ledger
from client_node.training.service import TrainingService
from shared.contracts.privacy import Privacy
from shared.contracts.training import (
    CensusReply,
    CensusRequest,
    DryRunReply,
    DryRunRequest,
    EvaluateRequest,
    Reply,
    Request,
    TrainRequest,
)
from shared.vision import backbones
from shared.vision.weights import base_sha256
from tests.client_node.training.site import RECIPE, make_home

BASE = base_sha256(backbones.get(RECIPE.backbone))
DRY_RUN = DryRunRequest(rounds=3, base_sha256=BASE, recipe=RECIPE, participants=3)
TRAIN = TrainRequest(run_key="run-1", round=1, rounds=3, base_sha256=BASE, recipe=RECIPE, participants=3)
EVALUATE = EvaluateRequest(run_key="run-1", base_sha256=BASE, recipe=RECIPE, participants=3)
PRIVATE = Privacy.model_validate({"kind": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0})
NOT_FOR_TRAINING = '[[training.dataset]]\nname = "painted"\npurposes = ["evaluate", "census"]\n'


def _asked(home: Path, request: Request) -> Reply:
    reply, tensors = TrainingService(home).handle(request, {})
    assert tensors == {}
    return reply


def _dry(home: Path, **change: object) -> DryRunReply:
    reply = _asked(home, DRY_RUN.model_copy(update=change))
    assert isinstance(reply, DryRunReply)
    assert Ledger(home).entries() == []
    return reply


def test_dry_run_says_yes_and_on_how_many_cells(tmp_path: Path) -> None:
    assert _dry(make_home(tmp_path / "h")) == DryRunReply(takes_part=True, examples=24)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"participants": 1}, "2 hospitals or more"),
        ({"base_sha256": "0" * 64}, "other base weights"),
        ({"recipe": RECIPE.model_copy(update={"backbone": "resnet9000"})}, "not known here"),
        ({"privacy": PRIVATE}, "counts the classes (ask for balance none)"),
        ({"tensor_bytes": 300_000_000}, "256 MB"),
    ],
)
def test_dry_run_says_why_not(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    reply = _dry(make_home(tmp_path / "h"), **change)
    assert not reply.takes_part
    assert reason in reply.reason


def test_dry_run_keeps_counts_that_the_policy_does_not_let_leave(tmp_path: Path) -> None:
    home = make_home(tmp_path / "h", policy='[training]\npurposes = ["train"]\n')
    assert _dry(home) == DryRunReply(takes_part=True, examples=None)
    only_train = '[[training.dataset]]\nname = "painted"\npurposes = ["train"]\n'
    (home / "policy.toml").write_text(only_train)
    assert _dry(home) == DryRunReply(takes_part=True, examples=0)


def test_data_set_is_used_for_its_own_purposes_only(tmp_path: Path) -> None:
    home = make_home(tmp_path / "h", policy=NOT_FOR_TRAINING)
    reply = _dry(home)
    assert (reply.takes_part, reply.reason) == (False, "This hospital trains only with 16 labelled cells or more.")
    counted = _asked(home, CensusRequest())
    assert isinstance(counted, CensusReply)
    assert sum(row.train for row in counted.census.rows) == 24
    (home / "policy.toml").write_text(NOT_FOR_TRAINING.replace(', "census"', ""))
    hidden = _asked(home, CensusRequest())
    assert isinstance(hidden, CensusReply)
    assert (hidden.census.rows, hidden.census.groups, hidden.census.feedback) == ((), 0, 0)


@pytest.mark.parametrize(
    ("request_", "policy", "reason"),
    [
        (TRAIN, NOT_FOR_TRAINING, "16 labelled cells"),
        (TRAIN, '[training]\nbackbones = ["resnet50"]\n', "backbone tf_efficientnet_lite0"),
        (EVALUATE, '[training]\nbackbones = ["resnet50"]\n', "backbone tf_efficientnet_lite0"),
        (TRAIN, '[training]\nleast_privacy = "dp-image"\n', "differential privacy for every image"),
        (CensusRequest(), '[training]\npurposes = ["train"]\n', '"census"'),
    ],
)
def test_request_beyond_the_policy_is_refused_and_written_down(
    tmp_path: Path, request_: Request, policy: str, reason: str
) -> None:
    home = make_home(tmp_path / "h", policy=policy)
    reply = _asked(home, request_)
    assert reply.kind == "refusal"
    assert (reply.code, reason in reply.reason) == ("policy_refused", True)
    assert [(entry.kind, reason in entry.note) for entry in Ledger(home).entries()] == [("refusal", True)]


def test_training_with_noise_is_never_done_without(tmp_path: Path) -> None:
    reply = _asked(make_home(tmp_path / "h"), TRAIN.model_copy(update={"privacy": PRIVATE}))
    assert reply.kind == "refusal"
    assert "counts the classes" in reply.reason
