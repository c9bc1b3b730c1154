"""What a node answers to the centre's requests, and what it refuses."""

import errno
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Kind, MarkedObject, NewItem
from client_node.datasets.splits import Split
from client_node.training.finder import teach
from client_node.training.service import TrainingService
from client_node.training.site import teaching_fields
from shared.contracts.model_card import ModelCard
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from shared.contracts.training import (
    CalibrationSummary,
    CensusReply,
    CensusRequest,
    EvaluateReply,
    EvaluateRequest,
    OwnPart,
    Recipe,
    Refusal,
    Reply,
    TrainingManifest,
    TrainReply,
    TrainRequest,
)
from shared.vision import backbones
from shared.vision.boxes import KINDS, OUTPUTS
from shared.vision.export import export_onnx
from shared.vision.model import build
from shared.vision.weights import base_sha256
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.test_compare import add_fields
from tests.client_node.training.site import CLASSES, RECIPE, make_home

Arrays = dict[str, np.ndarray[Any, Any]]
BASE = base_sha256(backbones.get(RECIPE.backbone))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start() -> Arrays:
    state = build(RECIPE.backbone, len(CLASSES)).trainable_state()
    return {name: value.numpy().astype(np.float16) for name, value in state.items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("node") / "home")


@pytest.fixture(scope="module")
def service(home: Path) -> TrainingService:
    return TrainingService(home)


def train_request(number: int = 1, *, recipe: Recipe = RECIPE, base: str = BASE, participants: int = 3) -> TrainRequest:
    return TrainRequest(
        run_key="run-1", round=number, rounds=3, base_sha256=base, recipe=recipe, participants=participants
    )


def evaluate_request() -> EvaluateRequest:
    return EvaluateRequest(run_key="run-1", base_sha256=BASE, recipe=RECIPE, participants=3)


def refusal(answer: tuple[Reply, Arrays]) -> Refusal:
    reply, tensors = answer
    assert isinstance(reply, Refusal)
    assert tensors == {}
    return reply


def test_train_learns_and_evaluate_says_so(service: TrainingService, home: Path, start: Arrays) -> None:
    first, update = service.handle(train_request(), start)
    assert isinstance(first, TrainReply)
    assert (first.examples, first.received.n, first.feedback_cells) == (24, 12, 1)
    assert {name: (array.dtype, array.shape) for name, array in update.items()} == {
        name: (array.dtype, array.shape) for name, array in start.items()
    }
    second, update = service.handle(train_request(2), update)
    assert isinstance(second, TrainReply)
    assert first.train_loss is not None
    assert second.train_loss is not None
    assert second.train_loss < first.train_loss
    assert second.received.accuracy > first.received.accuracy

    answer, nothing = service.handle(evaluate_request(), update)
    assert isinstance(answer, EvaluateReply)
    assert nothing == {}
    assert answer.candidate.n == 12
    assert answer.candidate.accuracy > 0.8
    assert answer.own is not None
    assert answer.own.n == 12
    assert answer.own.accuracy >= answer.candidate.accuracy
    again, _ = service.handle(train_request(3), update)  # the same model, received once more
    assert isinstance(again, TrainReply)
    assert answer.validation == again.received
    assert answer.current is None
    assert answer.finder is None  # the site has no marked fields

    body = (home / "training" / "manifests" / "run-1-r1.json").read_bytes()
    assert sha256(body).hexdigest() == first.manifest_sha256
    manifest = TrainingManifest.model_validate_json(body)
    assert list(manifest.cells) == sorted(set(manifest.cells))
    assert len(manifest.cells) == 24
    assert set(manifest.feedback_cells) < set(manifest.cells)


def test_evaluate_measures_the_current_model_beside(tmp_path: Path, home: Path, start: Arrays) -> None:
    mine = tmp_path / "home"
    shutil.copytree(home, mine, ignore=shutil.ignore_patterns("models"))
    folder = mine / "models" / "v1"
    folder.mkdir(parents=True)
    export_onnx(build(RECIPE.backbone, len(CLASSES)), RECIPE.input_size, folder / "model.onnx")
    (folder / "card.json").write_text(card())
    (mine / "models" / "current.json").write_text('{"version": "v1"}')
    answer, _ = TrainingService(mine).handle(evaluate_request(), start)
    assert isinstance(answer, EvaluateReply)
    assert answer.current is not None
    assert answer.current.n == answer.candidate.n == 12
    assert answer.current.loss == pytest.approx(answer.candidate.loss, abs=2e-3)  # the same, once through fp16


def test_a_site_that_the_shared_head_misreads_is_told_with_its_own(tmp_path: Path, start: Arrays) -> None:
    """The candidate as every hospital gets it, and as this one would run it: its own head is fitted and helps."""
    service = TrainingService(make_home(tmp_path / "home", train=10, val=8, test=8))
    _, update = service.handle(train_request(), start)
    mixed = {**update, "head.weight": np.roll(update["head.weight"], 1, axis=0)}
    answer, _ = service.handle(evaluate_request(), mixed)
    assert isinstance(answer, EvaluateReply)
    assert answer.own is not None
    assert answer.own_parts == (OwnPart.HEAD,)
    assert answer.candidate.accuracy < 0.4
    assert answer.own.accuracy > 0.8
    assert answer.as_run == answer.own


def test_a_site_with_marked_fields_says_whether_the_finder_does_worse(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=1, val=1, test=1)
    add_fields(home, 10)
    none = {**start, "finder.out.bias": np.where(np.arange(OUTPUTS) == KINDS.index(ObjectKind.CELL), -9, 0)}
    none["finder.out.bias"] = none["finder.out.bias"].astype(np.float16)
    answer, _ = TrainingService(home).handle(evaluate_request(), none)
    assert isinstance(answer, EvaluateReply)
    assert answer.finder is not None
    assert (answer.finder.cells, answer.finder.found, answer.finder.worse) == (20, 0, True)


def card() -> str:
    return ModelCard(
        version="v1",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        base_sha256=BASE,
        recipe=RECIPE,
        artefacts=(),
        run_key="run-0",
        sites={},
        examples={},
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
    ).model_dump_json()


def test_a_laboratory_is_told_of_as_a_whole_or_not_at_all(tmp_path: Path, start: Arrays) -> None:
    for name, policy, told in (("a", "[training]\n", True), ("b", "[training]\ntell_laboratory = false\n", False)):
        home = make_home(tmp_path / name, train=17, val=7, test=1, policy=policy)
        answer, _ = TrainingService(home).handle(evaluate_request(), start)
        assert isinstance(answer, EvaluateReply)
        assert (answer.laboratory is not None) is told
        if answer.laboratory is not None:
            assert answer.laboratory.gamut is not None
            assert answer.laboratory.dye_of_cells is not None
            assert answer.laboratory.dye_of_fields is None
    few = make_home(tmp_path / "few", train=16, val=7, test=1)  # 48 training cells
    answer, _ = TrainingService(few).handle(evaluate_request(), start)
    assert isinstance(answer, EvaluateReply)
    assert answer.laboratory is None


def test_census_counts_only(service: TrainingService) -> None:
    reply, _ = service.handle(CensusRequest(), {})
    assert isinstance(reply, CensusReply)
    assert [(row.cls, row.train, row.val, row.test) for row in reply.census.rows] == [
        (cls, 8, 4, 4) for cls in sorted(CLASSES, key=lambda cls: cls.order)
    ]


def test_train_on_few_validation_cells_works(tmp_path: Path, start: Arrays) -> None:
    service = TrainingService(make_home(tmp_path / "h", train=6, val=0, test=1))
    reply, _ = service.handle(train_request(), start)
    assert isinstance(reply, TrainReply)
    assert reply.received.n == 0
    answer, _ = service.handle(evaluate_request(), start)
    assert isinstance(answer, EvaluateReply)
    assert answer.calibration.temperature == 1.0


def bad_tensors(start: Arrays) -> dict[str, Arrays]:
    name = "head.weight"
    poisoned = start[name].copy()
    poisoned[0, 0] = np.nan
    return {
        "missing": {key: value for key, value in start.items() if key != name},
        "extra": {**start, "more": start[name]},
        "shape": {**start, name: start[name][:, :-1]},
        "not finite": {**start, name: poisoned},
        "type": {**start, name: start[name].astype(np.int32)},
        "none": {},
    }


@pytest.mark.parametrize("case", ["missing", "extra", "shape", "not finite", "type", "none"])
def test_train_with_hostile_tensors_is_refused(service: TrainingService, start: Arrays, case: str) -> None:
    assert refusal(service.handle(train_request(), bad_tensors(start)[case])).code == "model_invalid"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"backbone": "resnet9000"}, "model_invalid"),
        ({"local_epochs": 50}, "policy_refused"),
        ({"batch_size": 1024, "input_size": 512}, "usage"),
    ],
)
def test_train_with_a_hostile_recipe_is_refused(
    service: TrainingService, start: Arrays, change: dict[str, Any], code: str
) -> None:
    request = train_request(recipe=RECIPE.model_copy(update=change))
    assert refusal(service.handle(request, start)).code == code


def test_train_for_other_base_weights_is_refused(service: TrainingService, start: Arrays) -> None:
    assert refusal(service.handle(train_request(base="0" * 64), start)).code == "model_invalid"


def test_train_alone_is_refused_by_policy(service: TrainingService, start: Arrays) -> None:
    assert refusal(service.handle(train_request(participants=1), start)).code == "policy_refused"


def test_train_leaves_out_forbidden_sources(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h", policy='[training]\ndatasets = ["other"]\n')
    assert refusal(TrainingService(home).handle(train_request(), start)).code == "policy_refused"


def test_train_skips_a_damaged_image(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "h", val=1, test=0)
    victim = next((home / "images").rglob("*.png"))
    victim.chmod(0o600)
    victim.write_bytes(b"broken")
    reply, _ = TrainingService(home).handle(train_request(), start)
    assert isinstance(reply, TrainReply)
    assert reply.examples + reply.received.n == 26


def test_train_on_a_full_disk_is_refused(tmp_path: Path, start: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "h")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert refusal(TrainingService(home).handle(train_request(), start)).code == "no_space"
    assert not list((home / "training").rglob("*.part"))


def test_train_ends_when_the_trainer_stops(tmp_path: Path, start: Arrays) -> None:
    service = TrainingService(make_home(tmp_path / "h"), stopping=lambda: True)
    assert refusal(service.handle(train_request(), start)).code == "service_unavailable"


def test_an_inner_failure_is_refused_without_detail(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", val=1, test=0)
    with closing(sqlite3.connect(home / "catalogue.sqlite")) as connection:
        connection.execute("UPDATE item SET class = 'secret' WHERE hash = (SELECT hash FROM item LIMIT 1)")
        connection.commit()
    answer = refusal(TrainingService(home).handle(train_request(), start))
    assert answer.code == "error"
    assert "inner failure" in answer.reason
    assert "secret" not in answer.reason


def no_machine_memory() -> bool:
    return bool(np.empty(1 << 60, np.uint8).any())


def no_torch_memory() -> bool:
    return bool(torch.empty(1 << 50, dtype=torch.uint8).any())


def no_gpu_memory() -> bool:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 4 GiB")


@pytest.mark.parametrize("fails", [no_machine_memory, no_torch_memory, no_gpu_memory])
def test_too_little_memory_is_refused_in_plain_words_and_does_not_last(
    home: Path, start: Arrays, fails: Callable[[], bool]
) -> None:
    """Wherever memory ends; the next request is answered again."""
    todo: list[Callable[[], bool]] = [fails]
    service = TrainingService(home, stopping=lambda: todo.pop()() if todo else False)
    answer = refusal(service.handle(train_request(), start))
    assert (answer.code, "ask for a smaller batch or input size" in answer.reason) == ("nothing_to_do", True)
    assert "GiB" not in answer.reason
    assert isinstance(service.handle(evaluate_request(), start)[0], EvaluateReply)


def test_training_is_repeatable_and_uses_its_cache(tmp_path: Path, start: Arrays) -> None:
    """Once the maps are cached no image is needed any more."""
    home = make_home(tmp_path / "home", train=6, val=1, test=0)
    service = TrainingService(home)
    first, one = service.handle(train_request(), start)
    for image in (home / "images").rglob("*.png"):
        image.chmod(0o600)
        image.write_bytes(b"broken")
    second, two = service.handle(train_request(), start)
    assert isinstance(first, TrainReply)
    assert isinstance(second, TrainReply)
    assert (first.examples, first.received, first.manifest_sha256) == (
        second.examples, second.received, second.manifest_sha256,
    )  # fmt: skip
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_only_the_first_round_of_a_run_teaches_the_head_alone(tmp_path: Path, start: Arrays) -> None:
    service = TrainingService(make_home(tmp_path / "home", train=6, val=0, test=0))
    recipe = RECIPE.model_copy(update={"local_epochs": 1, "head_epochs": 1})
    moved = []
    for number in (1, 2):
        _, update = service.handle(train_request(number, recipe=recipe), start)
        assert not np.array_equal(update["head.weight"], start["head.weight"])
        moved.append(any(not np.array_equal(update[name], start[name]) for name in start if name.startswith("tail.")))
    assert moved == [False, True]


def add_field(home: Path, *, complete: bool) -> None:
    """Add a field with two cells, both marked or only the first."""
    image, boxes = draw_field(0, [(CellClass.NEUTROPHIL, 150, 120), (CellClass.EOSINOPHIL, 400, 200)])
    with Catalogue(home).writing() as writer:
        stored = writer.put_image(save(home / "field.png", image).read_bytes())
        writer.add([NewItem(stored.sha256, Kind.FIELD, None, None, "painted", "s", "f", Split.TRAIN)])
        writer.mark(stored.sha256, [MarkedObject(box, ObjectKind.CELL) for box in boxes[: 2 if complete else 1]])
        if complete:
            writer.complete(stored.sha256)


def test_a_site_with_marked_fields_teaches_the_finder(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home")
    add_field(home, complete=True)
    reply, tensors = TrainingService(home).handle(train_request(), start)
    assert isinstance(reply, TrainReply)
    assert reply.boxes == 2
    finder = [name for name in start if name.startswith("finder.")]
    assert finder
    assert all(not np.array_equal(tensors[name], start[name]) for name in finder)


def test_all_of_a_round_comes_from_the_recipes_seed(tmp_path: Path, start: Arrays) -> None:
    home = make_home(tmp_path / "home", train=6, val=0, test=0)
    add_field(home, complete=True)
    whole = {name: array.astype(np.float32) for name, array in start.items()}  # nothing is rounded on its way
    recipe = RECIPE.model_copy(update={"local_epochs": 1, "seed": 7})
    _, learnt = TrainingService(home).handle(train_request(2, recipe=recipe), whole)

    again = build(RECIPE.backbone, len(CLASSES))
    tail = {name: whole[name] if name.startswith("finder.") else learnt[name] for name in whole}
    again.load_trainable({name: torch.from_numpy(array) for name, array in tail.items()})
    size, singles = RECIPE.input_size, Catalogue(home).cells(split="train")
    before = build(RECIPE.backbone, len(CLASSES))
    before.load_trainable({name: torch.from_numpy(array) for name, array in whole.items()})
    fields = teaching_fields(home, purpose="train")
    teach(again, fields, singles, received=before.tail, size=size, seed=7002, between=lambda: None)
    for name, value in again.finder.state_dict().items():
        np.testing.assert_array_equal(learnt[f"finder.{name}"], value.numpy())


@pytest.mark.parametrize("fields", [0, 1])
def test_a_site_without_completely_marked_fields_returns_the_finder_as_it_came(
    tmp_path: Path, start: Arrays, fields: int
) -> None:
    home = make_home(tmp_path / "home", val=0, test=0)
    if fields:
        add_field(home, complete=False)
    reply, tensors = TrainingService(home).handle(train_request(), start)
    assert isinstance(reply, TrainReply)
    assert reply.boxes == 0
    assert all(np.array_equal(tensors[name], start[name]) for name in start if name.startswith("finder."))
