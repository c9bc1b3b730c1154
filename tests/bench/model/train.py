"""The models that the bench measures: trained by the product's own loop on what its importer took in, kept by stage."""

from pathlib import Path
from typing import Final

import numpy as np

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.finder import joined, lessons, train_finder
from client_node.training.loop import train
from client_node.training.sources import CropSource
from shared.contracts.ontology import CellClass
from shared.vision.device import placed, torch_device
from shared.vision.model import CellModel, build
from tests.bench.model.folder import TOLD, keep, tell
from tests.bench.model.say import Progress, say
from tests.bench.model.stages import CLASSES, MOST_IMAGES, RECIPE, Stage, cells_of, positions, stage_facts
from tests.bench.model.steps import Json, Steps

__all__ = ["CLASSES", "RECIPE", "Progress", "Stage", "cells_of", "chosen", "model_of", "positions", "say"]

SINGLES: Final = 200
"""So many images of single cells teach the finder beside the marked fields."""


def model_of(steps: Steps, work: Path, home: Path, data: Path, stage: Stage) -> Path:
    """Train ``stage`` unless its model is there, made from the same facts; return its folder, that of a version."""
    folder = work / "models" / stage.name
    facts = stage_facts(stage, data)
    trained = steps.run(folder / "piece.json", facts, lambda: _made(work, home, stage, folder))

    def told() -> Json:
        validation = [cell for source in stage.sources for cell in cells_of(home, "val", source)]
        tell(folder, stage, chosen(home, stage.sources), validation, trained.result["boxes"])
        return None

    steps.run(folder / "told.json", {"model": facts, "told": TOLD}, told)
    return folder


def _made(work: Path, home: Path, stage: Stage, folder: Path) -> Json:
    say(f"training {stage.name}")
    cells = chosen(home, stage.sources)
    model = build(stage.recipe.backbone, len(CLASSES), frozen_stages=stage.recipe.frozen_stages)
    placed(model, torch_device())
    kept, crops = CropCache(work / "crops", size=stage.recipe.input_size).load(cells, between=lambda: None)
    source = CropSource(crops, model, stage.recipe.input_size, augment.STRENGTHS[stage.recipe.augmentation])
    progress = Progress(stage.name, stage.recipe, len(kept))
    loss = train(model, source, positions(kept), stage.recipe, seed=1, between=progress)
    model.to("cpu")
    boxes = _taught(model, stage, home, kept)
    keep(folder, model, stage.recipe)
    return {"images": len(kept), "loss": loss, "boxes": boxes}


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
