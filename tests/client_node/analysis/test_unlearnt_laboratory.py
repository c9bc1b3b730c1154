"""A node that has just joined, without one label: it knows a laboratory that taught its model, and no other."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.fields import find_cells
from client_node.analysis.model import LoadedModel, load_model
from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from client_node.datasets.importers import import_source
from client_node.training.service import TrainingService
from server.federation.strategies.tensors import Tensors
from server.models.base import utc_now
from server.registry.artefacts import Candidate, artefact_key, build
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.laboratory import KNOWN_FILE
from shared.contracts.ontology import CellClass
from shared.contracts.training import (
    EvaluateReply,
    EvaluateRequest,
    Recipe,
    TrainRequest,
)
from shared.storage import MemoryStore
from shared.vision import backbones
from shared.vision.engine import ONNX_FILE
from shared.vision.images import load_image
from shared.vision.model import build as new_model
from shared.vision.weights import base_sha256
from tests.server.federation.world import new_database

CLASSES = (
    CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL, CellClass.BASOPHIL,
)  # fmt: skip
RECIPE = Recipe(classes=CLASSES, input_size=96, views=1, local_epochs=1, batch_size=32)
MOST = {"train": 50, "val": 12}
UNSEEN = 40
BASE = base_sha256(backbones.get(RECIPE.backbone))

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(smears: Path, split: str) -> list[dict[str, str]]:
    with (smears / "labels.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["source"] == "pbc" and row["split"] == split]
    return [row for row in found if row["class"] in {cls.value for cls in CLASSES}]


def learnt(home: Path, smears: Path) -> None:
    """A hospital with some cells of PBC."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen = []
    for row in [*rows(smears, "train"), *rows(smears, "val")]:
        key = row["split"], row["class"]
        taken[key] += 1
        if taken[key] <= MOST[row["split"]]:
            chosen.append(row)
    home.mkdir(parents=True)
    (home / "policy.toml").write_text("[training]\n")
    table = home.parent / "some.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, chosen[0].keys())
        writer.writeheader()
        writer.writerows(chosen)
    import_source(home, smears, "csv", labels=table)


@pytest.fixture(scope="module")
def model(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version that the centre makes of a run with one hospital: trained for seconds, as nodes get it."""
    folder = tmp_path_factory.mktemp("unlearnt")
    learnt(folder / "home", smears)
    service = TrainingService(folder / "home")
    start = {name: value.numpy() for name, value in new_model(RECIPE.backbone, len(CLASSES)).trainable_state().items()}
    facts = {"run_key": "run", "base_sha256": BASE, "recipe": RECIPE, "participants": 2}
    _, update = service.handle(TrainRequest.model_validate({**facts, "round": 1, "rounds": 1}), start)
    reply, _ = service.handle(EvaluateRequest.model_validate(facts), update)
    assert isinstance(reply, EvaluateReply)
    tensors: Tensors = {name: value.astype("float32") for name, value in update.items()}
    store, database = MemoryStore(), new_database()
    vault = FileVault.create(folder / "centre/keys")
    runtime = Runtime(settings=ServerSettings(home=folder / "centre"), database=database, store=store, vault=vault)
    candidate = Candidate("run", RECIPE, BASE, tensors, {"north": reply}, {"north": 250}, None)
    card = build(runtime, candidate).card
    database.dispose()
    made = folder / "model"
    made.mkdir()
    for artefact in card.artefacts:
        (made / artefact.name).write_bytes(store.get(artefact_key(card.version, artefact.name)))
    (made / "card.json").write_text(card.model_copy(update={"created_at": utc_now()}).model_dump_json(by_alias=True))
    return made


@pytest.mark.data
def test_an_unlearnt_laboratory_is_flagged_and_a_learnt_one_is_not(model: Path, smears: Path, tmp_path: Path) -> None:
    assert (model / KNOWN_FILE).is_file()
    (tmp_path / "home").mkdir()
    analyser = Analyser(tmp_path / "home", model_dir=model)
    assert (analyser.model.adapter.cells, analyser.model.adapter.space) == (0, None)
    fields = sorted((smears / "bccd").rglob("*.jpg"))[:12]
    (bccd,) = analyser.analyze(fields, options=Options(kind=SmearKind.FIELDS)).smears
    unseen = [smears / row["path"] for row in rows(smears, "test")][:: len(rows(smears, "test")) // UNSEEN]
    folder = tmp_path / "pbc"
    folder.mkdir()
    for path in unseen:
        shutil.copy(path, folder)
    (pbc,) = analyser.analyze([folder], options=Options(kind=SmearKind.GALLERY)).smears
    assert len(bccd.cells) >= 8
    assert "out_of_distribution" in {flag.id for flag in bccd.flags}
    assert "out_of_distribution" not in {flag.id for flag in pbc.flags}
    known, strange = (np.array([cell.ood_score for cell in smear.cells]) for smear in (pbc, bccd))
    assert (known[:, None] < strange[None, :]).mean() > 0.95


@pytest.mark.data
def test_torch_analyses_where_the_exported_file_cannot_be_loaded(model: Path, smears: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "model")
    (broken / ONNX_FILE).write_bytes(b"damaged")
    paths = [smears / row["path"] for row in rows(smears, "test")[:6]]
    one, other = (
        Analyser(tmp_path / name, model_dir=folder).analyze(paths, options=Options(kind=SmearKind.GALLERY)).smears[0]
        for name, folder in (("a", model), ("b", broken))
    )
    assert (one.engine, other.engine) == ("onnxruntime", "torch")
    assert [cell.cls for cell in one.cells] == [cell.cls for cell in other.cells]
    assert [cell.ood_score for cell in one.cells] == pytest.approx([cell.ood_score for cell in other.cells], abs=1e-3)


@pytest.mark.data
def test_without_what_it_carries_the_same_model_hardly_knows_the_difference(model: Path, smears: Path) -> None:
    loaded = load_model(model)
    known = [loaded.cut(load_image(smears / row["path"]), None) for row in rows(smears, "test")[::24]]
    fields = [load_image(path) for path in sorted((smears / "bccd").rglob("*.jpg"))[:12]]
    strange = [cell.crop for field in fields for cell in find_cells(loaded, field).cells]

    def told_apart(by: LoadedModel) -> float:
        scores = [np.array([one.ood_score for one in by.read(crops)]) for crops in (known, strange)]
        return float((scores[0][:, None] < scores[1][None, :]).mean())

    assert told_apart(loaded) > told_apart(replace(loaded, known=None)) + 0.1
