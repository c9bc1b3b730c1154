"""The models that the bench measures: trained by the product's own loop on what its importer took in, kept by stage."""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import save_file

from client_node.analysis.model import read_card
from client_node.datasets.catalogue import Catalogue, LabelledCell, as_predicted
from client_node.datasets.importers import import_source
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.finder import joined, lessons, train_finder
from client_node.training.loop import STEPS_AN_EPOCH, Labels, train
from client_node.training.sources import CropSource
from shared.contracts.model_card import ArtefactRef, ModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.training import CalibrationSummary, Recipe
from shared.vision import backbones
from shared.vision.device import placed, torch_device
from shared.vision.engine import DELTA_FILE, ONNX_FILE
from shared.vision.export import export_onnx
from shared.vision.model import CellModel, build
from shared.vision.weights import base_sha256

CLASSES: Final = (
    CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL, CellClass.BASOPHIL,
    CellClass.IMMATURE_GRANULOCYTE, CellClass.ERYTHROBLAST, CellClass.PLATELET,
)  # fmt: skip
MOST_IMAGES: Final = 2300
SINGLES: Final = 200
"""So many images of single cells teach the finder beside the marked fields."""
_IMPORT: Final = 2
"""Raise it when the importers keep more than they did."""
RECIPE: Final = Recipe(
    classes=CLASSES, frozen_stages=0, input_size=144, local_epochs=12, learning_rate=4e-4, head_learning_rate=2e-3,
    ema=0.995, batch_size=32,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """A model of the bench."""

    name: str
    sources: tuple[str, ...]
    recipe: Recipe


def catalogue(work: Path, data: Path) -> Path:
    """Import the real smears once into a home below ``work``; return the home."""
    home = work / "home"
    marker = work / f"imported-{_IMPORT}"
    if not marker.exists():
        say(f"importing {data}")
        import_source(home, data, "csv", labels=data / "labels.csv")
        marker.touch()
    return home


def cells_of(home: Path, split: str, source: str) -> list[LabelledCell]:
    """Return a source's labelled cells of a split whose class (or its parent) the models predict."""
    cells = Catalogue(home).cells(split=split)
    return [cell for cell in cells if cell.source == source and as_predicted(cell.cls, CLASSES)]


def positions(cells: list[LabelledCell]) -> Labels:
    """Return the cells' positions in `CLASSES`."""
    return np.array([CLASSES.index(as_predicted(cell.cls, CLASSES) or cell.cls) for cell in cells], np.int64)


def model_of(work: Path, home: Path, stage: Stage) -> Path:
    """Train ``stage`` unless its model, by the same recipe, is there; return the folder (card, tensors, ONNX)."""
    folder = work / "models" / stage.name
    if (folder / "card.json").is_file() and read_card(folder).recipe == stage.recipe:
        return folder
    cells = chosen(home, stage.sources)
    model = build(stage.recipe.backbone, len(CLASSES), frozen_stages=stage.recipe.frozen_stages)
    placed(model, torch_device())
    kept, crops = CropCache(work / "crops", size=stage.recipe.input_size).load(cells, between=lambda: None)
    source = CropSource(crops, model, stage.recipe.input_size, augment.STRENGTHS[stage.recipe.augmentation])
    begin = time.monotonic()
    progress = Progress(stage.name, stage.recipe, len(kept))
    loss = train(model, source, positions(kept), stage.recipe, seed=1, between=progress)
    say(f"{stage.name}: loss {loss:.3f} on {len(kept)} images in {time.monotonic() - begin:.0f} s")
    _write(folder, stage, model, kept, _taught(model.to("cpu"), stage, home, kept))
    return folder


def _taught(model: CellModel, stage: Stage, home: Path, cells: list[LabelledCell]) -> dict[str, int]:
    """Train the finder on the stage's marked fields; return the cells marked in them by source."""
    fields = [one for one in Catalogue(home).fields(split="train") if one.source in stage.sources and one.cells]
    if not fields:
        return {}
    singles = [cell for cell in cells if cell.box is None][:SINGLES]
    say(f"{stage.name}: finder, {len(fields)} fields")
    random = np.random.default_rng(1)
    parts = lessons(model, fields, singles, size=stage.recipe.input_size, random=random, between=lambda: None)
    train_finder(model.finder, joined(list(parts)), seed=1, between=lambda: None)
    return {source: sum(len(one.cells) for one in fields if one.source == source) for source in stage.sources}


def chosen(home: Path, sources: tuple[str, ...]) -> list[LabelledCell]:
    """Return the training cells, at most `MOST_IMAGES`: the largest source gives the same share of each class."""
    by_source = {source: cells_of(home, "train", source) for source in sources}
    largest = max(by_source, key=lambda source: len(by_source[source]))
    room = MOST_IMAGES - sum(len(cells) for source, cells in by_source.items() if source != largest)
    share = min(1.0, room / len(by_source[largest]))
    kept = []
    for cls in CellClass:
        same = sorted((cell for cell in by_source[largest] if cell.cls is cls), key=lambda cell: cell.hash)
        kept += same[: int(len(same) * share)]
    return kept + [cell for source, cells in by_source.items() if source != largest for cell in cells]


def _write(folder: Path, stage: Stage, model: CellModel, cells: list[LabelledCell], boxes: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.trainable_state(), folder / DELTA_FILE)
    export_onnx(model, stage.recipe.input_size, folder / ONNX_FILE)
    files = [folder / DELTA_FILE, folder / ONNX_FILE]
    card = ModelCard(
        version=f"bench-{stage.name}",
        created_at=datetime.now(UTC),
        base_sha256=base_sha256(backbones.get(stage.recipe.backbone)),
        recipe=stage.recipe,
        artefacts=tuple(
            ArtefactRef(name=file.name, sha256=sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)
            for file in files
        ),
        run_key="bench-model",
        sites={},
        examples={source: sum(cell.source == source for cell in cells) for source in stage.sources},
        boxes={source: count for source, count in boxes.items() if count},
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
    )
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))


class Progress:
    """Says every so many steps how far a training is."""

    def __init__(self, name: str, recipe: Recipe, count: int) -> None:
        self._name = name
        self._steps = recipe.local_epochs * max(STEPS_AN_EPOCH, -(-count // recipe.batch_size))
        self._done = 0
        self._begin = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        if self._done % 50 == 0:
            spent = time.monotonic() - self._begin
            left = spent / self._done * (self._steps - self._done)
            say(f"{self._name}: step {self._done} of {self._steps}, about {left:.0f} s left")


def say(text: str) -> None:
    """Show progress."""
    sys.stderr.write(f"bench-model: {text}\n")
    sys.stderr.flush()
