"""Private rounds of a node: charged before training, within the budget, and telling nothing of the training cells."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client_node.analysis.model import read_card
from client_node.budget import Budget, read_budget
from client_node.cases.ledger import Ledger
from client_node.datasets.catalogue import Catalogue
from client_node.home import NodeHome
from client_node.models.trial import run_trial
from client_node.policy import load_policy
from client_node.training import privacy as private
from client_node.training import private_training as trainer
from client_node.training.accounting import Noisy, epsilon_of
from client_node.training.private_loop import CENTRE
from client_node.training.service import TrainingService
from shared.contracts.errors import ConfigError
from shared.contracts.privacy import Privacy, PrivacySpent, PrivacyUnit
from shared.contracts.training import (
    Balance,
    DryRunReply,
    DryRunRequest,
    EvaluateReply,
    EvaluateRequest,
    OwnPart,
    Refusal,
    TrainingManifest,
    TrainReply,
    TrainRequest,
)
from shared.vision import backbones
from shared.vision.export import export_onnx
from shared.vision.model import build
from shared.vision.precision import ONNX_FILE
from shared.vision.weights import base_sha256
from tests.client_node.analysis.models import install_model
from tests.client_node.training.site import CLASSES, RECIPE, make_home

Arrays = dict[str, np.ndarray[Any, Any]]
BASE = base_sha256(backbones.get(RECIPE.backbone))
ASKED = RECIPE.model_copy(update={"balance": Balance.NONE, "batch_size": 32, "local_epochs": 1})
EIGHT = Privacy.model_validate({"kind": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0})

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start() -> Arrays:
    state = build(RECIPE.backbone, len(CLASSES)).trainable_state()
    return {name: value.numpy().astype(np.float16) for name, value in state.items()}


def _request(number: int = 1, *, rounds: int = 3, run: str = "run-1", **change: object) -> TrainRequest:
    whole = TrainRequest(
        run_key=run, round=number, rounds=rounds, base_sha256=BASE, recipe=ASKED, participants=3, privacy=EIGHT
    )
    return whole.model_copy(update=change)


def _trained(service: TrainingService, start: Arrays, request: TrainRequest) -> tuple[TrainReply, Arrays]:
    reply, update = service.handle(request, start)
    assert isinstance(reply, TrainReply), reply
    return reply, update


def _refused(home: Path, start: Arrays, request: TrainRequest) -> str:
    reply, update = TrainingService(home).handle(request, start)
    assert isinstance(reply, Refusal)
    assert update == {}
    return reply.reason


def test_private_round_tells_nothing_of_its_cells_and_is_charged(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h")
    service, thirds = TrainingService(home), ASKED.model_copy(update={"batch_size": 8})
    reply, update = _trained(service, start, _request(recipe=thirds))
    assert (reply.examples, reply.train_loss, reply.feedback_cells, reply.boxes) == (20, None, 0, 0)
    assert reply.privacy is not None
    assert 0 < reply.privacy.epsilon < 8.0
    learnt = {name for name, array in update.items() if not np.array_equal(array, start[name])}
    assert any(name.startswith("head.") for name in learnt)
    assert not any(name.startswith("finder.") for name in learnt)
    (charge,) = read_budget(home).charges
    assert (charge.run_key, charge.round, charge.steps, charge.released) == ("run-1", 1, 3, True)
    assert charge.sample_rate == pytest.approx(1 / 3)
    spent = Noisy(charge.noise_multiplier, charge.sample_rate, charge.steps)
    exact = epsilon_of([spent, CENTRE], 1e-5)
    assert charge.run_epsilon == exact
    assert exact < reply.privacy.epsilon == round(reply.privacy.epsilon, 1) < exact + 0.1
    manifests = home / "training" / "manifests"
    first = TrainingManifest.model_validate_json((manifests / "run-1-r1.json").read_bytes())
    again, _ = _trained(service, start, _request(2, recipe=thirds))
    second = TrainingManifest.model_validate_json((manifests / "run-1-r2.json").read_bytes())
    assert first.cells == second.cells
    assert len({first.salt, second.salt, ""}) == 3
    assert again.privacy is not None
    assert again.privacy.epsilon > reply.privacy.epsilon
    assert len({one.noise_multiplier for one in read_budget(home).charges}) == 1


@pytest.mark.parametrize(("exact", "promised", "told"), [(2.001, 8.0, 2.1), (7.996, 8.0, 8.0), (2.001, 2.005, 2.005)])
def test_epsilon_is_told_rounded_up_and_never_beyond_the_promise(exact: float, promised: float, told: float) -> None:
    spent = PrivacySpent(unit=PrivacyUnit.IMAGE, epsilon=exact, delta=1e-5)
    round_ = private.PrivateRound(units=(), noise=CENTRE, clip=1.0, spent=spent, promised=promised)
    assert round_.told.model_dump(mode="json") == {"unit": "image", "epsilon": told, "delta": 1e-5}


def test_a_runs_rounds_together_keep_its_promise_and_no_round_more(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h")
    service = TrainingService(home)
    spent = [_trained(service, start, _request(number, rounds=2))[0].privacy for number in (1, 2)]
    assert spent[-1] is not None
    assert 7.5 < spent[-1].epsilon <= 8.0
    other = {**start, "head.bias": start["head.bias"] + np.float16(1)}  # not the round that was trained
    assert "whose ε is spent" in _refused(home, other, _request(2, rounds=2))
    assert len(read_budget(home).charges) == 2


@pytest.mark.parametrize("killed", [False, True])
def test_a_lost_answer_of_the_last_round_is_sent_again_and_spends_nothing(
    tmp_path: Path, start: Arrays, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    home = make_home(tmp_path / "h")
    with monkeypatch.context() as patched:
        if killed:  # after the update was kept, before that was written down
            patched.setattr(private, "release", lambda *_: None)
        first, update = _trained(TrainingService(home), start, _request(1, rounds=1))
    assert read_budget(home).charges[0].released is not killed
    again, same = _trained(TrainingService(home), start, _request(1, rounds=1, nonce="0" * 32, participants=2))
    assert again == first
    assert {name: array.tobytes() for name, array in same.items()} == {
        name: array.tobytes() for name, array in update.items()
    }
    (charge,) = read_budget(home).charges
    assert charge.released
    (kept,) = (home / "training" / "private-last").iterdir()
    body = kept.read_bytes()
    kept.write_bytes(body[:100])  # damaged: trained anew, were there anything left to spend
    assert "whose ε is spent" in _refused(home, start, _request(1, rounds=1))
    kept.write_bytes(body)
    NodeHome(home).budget.unlink()  # a record that knows nothing of it is charged
    assert _trained(TrainingService(home), start, _request(1, rounds=1))[1]["head.weight"].tobytes() != (
        update["head.weight"].tobytes()
    )
    assert len(read_budget(home).charges) == 1


def test_evaluation_tells_nothing_of_the_training_cells(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h", train=40, val=20)
    ask = EvaluateRequest(run_key="run-1", base_sha256=BASE, recipe=RECIPE, participants=3)

    def told(request: EvaluateRequest) -> EvaluateReply:
        reply, _ = TrainingService(home).handle(request, start)
        assert isinstance(reply, EvaluateReply)
        return reply

    plain = told(ask)
    assert plain.laboratory is not None
    for hidden in (ask.model_copy(update={"privacy": EIGHT}), _after_private_run(home, ask)):
        reply = told(hidden)
        assert (reply.laboratory, reply.boxes) == (None, 0)
        assert (reply.own, reply.own_parts) == (None, ())
        assert reply.candidate == plain.candidate
        assert reply.calibration.density != plain.calibration.density  # of validation cells now


def test_the_model_in_use_is_judged_as_the_candidate_is(tmp_path: Path, start: Arrays) -> None:
    """What training cells have shaped here shows in neither: head, normalisation, nor an evaluation that fails."""
    home = make_home(tmp_path / "h", train=10, val=8, test=8)
    learnt = TrainingService(home).handle(_request(recipe=RECIPE, privacy=None), start)[1]
    mixed = {**learnt, "head.weight": np.roll(learnt["head.weight"], 1, axis=0)}
    model = build(RECIPE.backbone, len(CLASSES))
    model.load_trainable({name: torch.from_numpy(array) for name, array in mixed.items()})
    folder = install_model(home)
    card = read_card(folder).model_copy(update={"recipe": RECIPE})
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))
    export_onnx(model, RECIPE.input_size, folder / ONNX_FILE)
    trial = run_trial(NodeHome(home), "test-1", None)
    assert OwnPart.HEAD in trial.parts
    ask = EvaluateRequest(run_key="run-2", base_sha256=BASE, recipe=RECIPE, participants=3)
    found = {}
    for name, request in {"open": ask, "hidden": ask.model_copy(update={"privacy": EIGHT})}.items():
        reply, _ = TrainingService(home).handle(request, mixed)
        assert isinstance(reply, EvaluateReply)
        assert reply.current is not None
        found[name] = reply
    assert found["open"].own_parts == (OwnPart.HEAD,)
    assert found["open"].current is not None
    assert found["open"].current.accuracy > 0.8
    hidden = found["hidden"]
    assert (hidden.own, hidden.own_parts) == (None, ())
    assert hidden.current is not None
    assert hidden.current.accuracy == hidden.as_run.accuracy < 0.4  # the same network: nothing is lost by it


def _after_private_run(home: Path, ask: EvaluateRequest) -> EvaluateRequest:
    """The centre leaves out that its run was private: the node knows."""
    policy = load_policy(home)
    request = _request()
    cells = Catalogue(home).cells(split="train", classes=CLASSES)
    planned = private.planned(home, policy, request, cells)
    assert planned is not None
    private.charge(home, policy, request, planned)
    return ask


def test_killed_round_is_charged_once_and_a_lost_one_twice(
    tmp_path: Path, start: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "h")

    class KilledError(BaseException):
        """As if the process were gone."""

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_privately", killed)
        with pytest.raises(KilledError):
            TrainingService(home).handle(_request(), start)
    (charged,) = read_budget(home).charges
    assert not charged.released
    _trained(TrainingService(home), start, _request())
    (again,) = read_budget(home).charges
    assert (again.released, again.noise_multiplier) == (True, charged.noise_multiplier)
    shutil.rmtree(home / "training" / "private-last")
    _trained(TrainingService(home), start, _request())  # its answer was lost on the way, and is not here any more
    assert [one.round for one in read_budget(home).charges] == [1, 1]


def test_run_beyond_the_budget_is_refused_from_the_start_and_written_down(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h", policy="[training]\ntotal_epsilon = 9.0\n")
    _trained(TrainingService(home), start, _request(1, rounds=1))
    before = read_budget(home)
    assert 7.5 < before.epsilon <= 8.0
    reason = _refused(home, start, _request(run="run-2"))
    assert "privacy budget for all runs together (ε ≤ 9" in reason
    dry = DryRunRequest(rounds=3, base_sha256=BASE, recipe=ASKED, participants=3, privacy=EIGHT)
    answer, _ = TrainingService(home).handle(dry, {})
    assert answer == DryRunReply(takes_part=False, reason=reason, examples=24)
    assert read_budget(home) == before
    assert [(entry.kind, entry.subject, "budget" in entry.note) for entry in Ledger(home).entries()] == [
        ("refusal", "run-2", True)
    ]
    small = EIGHT.model_copy(update={"epsilon": 2.0})
    _trained(TrainingService(home), start, _request(run="run-2", privacy=small))


def test_damaged_record_trains_nothing(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h")
    NodeHome(home).budget.write_text("{")
    with pytest.raises(ConfigError):
        read_budget(home)
    assert "privacy.json" in _refused(home, start, _request())
    assert TrainingService(home).handle(_request(privacy=None), start)[0].kind == "train"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recipe": RECIPE}, "counts the classes"),
        ({"recipe": ASKED.model_copy(update={"patience": 2})}, "patience 0"),
        ({"recipe": ASKED.model_copy(update={"proximal_mu": 0.1})}, "FedProx"),
        ({"privacy": EIGHT.model_copy(update={"unit": PrivacyUnit.PATIENT})}, "cannot hide patients"),
        ({"privacy": EIGHT.model_copy(update={"noise_multiplier": 0.3})}, "noise of at most 0.3"),
        ({"privacy": EIGHT.model_copy(update={"epsilon": 1e-3})}, "noise of at most 100"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, start: Arrays, change: dict[str, object], reason: str) -> None:
    home = make_home(tmp_path / "h")
    assert reason in _refused(home, start, _request(**change))  # type: ignore[arg-type]  # of any field
    assert read_budget(home) == Budget()


def test_patients_are_hidden_where_the_hospital_says_that_groups_are_such(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h", policy='[training]\ngroups_are_patients = ["painted"]\n')
    cells = Catalogue(home).cells(split="train", classes=CLASSES)
    merged = [cell if number else cells[1] for number, cell in enumerate(cells)]
    assert len(private.units_of(merged, PrivacyUnit.PATIENT, ("*",))[0]) == 2
    patient = EIGHT.model_copy(update={"unit": PrivacyUnit.PATIENT})
    reply, _ = _trained(TrainingService(home), start, _request(privacy=patient))
    assert reply.privacy is not None
    assert reply.privacy.unit is PrivacyUnit.PATIENT
