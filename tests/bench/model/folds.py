"""The smaller source by grouped folds: each cell is judged by a model that learnt from the other folds' fields."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from client_node.datasets.catalogue import LabelledCell
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.loop import train
from client_node.training.sources import CropSource
from shared.contracts.training import Recipe
from shared.vision.device import placed, torch_device
from shared.vision.engine import DELTA_FILE
from shared.vision.model import CellModel, build
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.train import CLASSES, Progress, positions, say

FOLDS: Final = 5
_KEPT: Final = 700
"""So many cells of the larger source are repeated, lest the model forget it: one model serves both."""


def assigned(cells: Sequence[LabelledCell], folds: int = FOLDS) -> NDArray[np.int64]:
    """Return each cell's fold, 0 … ``folds`` - 1: a group is never divided, and classes are spread evenly."""
    groups: dict[str, str] = {}
    for cell in sorted(cells, key=lambda cell: cell.hash):
        groups.setdefault(cell.group, cell.cls.value)
    by_class: dict[str, list[str]] = defaultdict(list)
    for group, cls in groups.items():
        by_class[cls].append(group)
    fold_of: dict[str, int] = {}
    for cls in sorted(by_class):
        for group in sorted(by_class[cls], key=lambda group: sha256(group.encode()).hexdigest()):
            fold_of[group] = len(fold_of) % folds
    return np.array([fold_of[cell.group] for cell in cells], np.int64)


def started(folder: Path, recipe: Recipe) -> CellModel:
    """Return the trained model in ``folder``, ready to learn on."""
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    model.load_trainable(load_file(folder / DELTA_FILE))
    placed(model, torch_device())
    return model


def out_of_fold(
    work: Path, start: Path, recipe: Recipe, cells: Sequence[LabelledCell], others: Sequence[LabelledCell],
    *, folds: int = FOLDS, name: str = "folds",
) -> Answers:  # fmt: skip
    """Return the answers on ``cells``, each by the model of ``start`` after it learnt from the other folds.

    ``others`` are cells of the source that ``start`` knows; some of them are repeated. Kept by fold below ``work``.
    """
    facts = recipe.model_dump_json() + sha256((start / DELTA_FILE).read_bytes()).hexdigest() + str((folds, _KEPT))
    folder = work / name / sha256(facts.encode()).hexdigest()[:16]
    fold = assigned(cells, folds)
    repeated = sorted(others, key=lambda cell: cell.hash)[:_KEPT]
    found: list[Answers] = []
    for number in range(folds):
        held = [cell for cell, where in zip(cells, fold, strict=True) if where == number]
        file = folder / f"{number}.npz"
        if not file.is_file():
            rest = [cell for cell, where in zip(cells, fold, strict=True) if where != number]
            model = _learnt(work, start, recipe, [*rest, *repeated], f"{name} {number + 1} of {folds}")
            judged = answers_of(model, recipe, held)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, logits=judged.logits, features=judged.features)
        stored = np.load(file)
        found.append(Answers(stored["logits"], stored["features"], positions(held)))
    order = np.argsort(np.concatenate([np.flatnonzero(fold == number) for number in range(folds)]))
    return Answers(
        np.concatenate([one.logits for one in found])[order],
        np.concatenate([one.features for one in found])[order],
        np.concatenate([one.labels for one in found])[order],
    )


def _learnt(work: Path, start: Path, recipe: Recipe, cells: list[LabelledCell], name: str) -> CellModel:
    model = started(start, recipe)
    kept, crops = CropCache(work / "crops", size=recipe.input_size).load(cells, between=lambda: None)
    source = CropSource(crops, model, recipe.input_size, augment.STRENGTHS[recipe.augmentation])
    loss = train(model, source, positions(kept), recipe, seed=1, between=Progress(name, recipe, len(kept)))
    say(f"{name}: loss {loss:.3f} on {len(kept)} images")
    return model.to("cpu")
