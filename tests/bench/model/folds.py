"""The smaller source by grouped folds: each cell is judged by a model that learnt from the other folds' fields."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell
from client_node.datasets.splits import Split
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.loop import train
from client_node.training.sources import CropSource
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision.model import CellModel
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.figures import among_five, balanced
from tests.bench.model.folder import started
from tests.bench.model.pace import SMALL, fold_seconds
from tests.bench.model.rows import share
from tests.bench.model.say import Progress, say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES, fold_recipe, positions
from tests.bench.model.steps import Json

FOLDS: Final = 5
REPEATED: Final = 150
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


def out_of_fold(bench: Bench, cells: Sequence[LabelledCell], others: Sequence[LabelledCell]) -> Answers:
    """Return the answers on ``cells``, each by the model of the larger source after it learnt from the other folds.

    ``others`` are cells of the source that it knows; some of them are repeated. Each fold is a piece of its own.
    """
    start, recipe = bench.model("pbc"), fold_recipe(quick=bench.quick)
    fold = assigned(cells)
    repeated = sorted(others, key=lambda cell: cell.hash)[:REPEATED]
    found: list[Answers] = []
    for number in range(FOLDS):
        held = [cell for cell, where in zip(cells, fold, strict=True) if where == number]
        rest = [cell for cell, where in zip(cells, fold, strict=True) if where != number]

        def judged(held: list[LabelledCell] = held, rest: list[LabelledCell] = rest, number: int = number) -> Json:
            name = f"fold {number + 1} of {FOLDS}"
            answered = answers_of(_learnt(bench.work, start, recipe, [*rest, *repeated], name), recipe, held)
            return {"logits": answered.logits.tolist()}

        facts = {"start": bench.facts("pbc"), "fold": _fold_facts(bench), "cells": [cell.hash for cell in held]}
        mark = "-quick" if bench.quick else ""
        piece = bench.steps.run(bench.work / "folds" / f"{number}{mark}.json", facts, judged)
        logits = np.array(piece.result["logits"], np.float32)
        found.append(Answers(logits, np.zeros((len(held), 0), np.float32), positions(held)))
    order = np.argsort(np.concatenate([np.flatnonzero(fold == number) for number in range(FOLDS)]))
    return Answers(
        np.concatenate([one.logits for one in found])[order],
        np.concatenate([one.features for one in found])[order],
        np.concatenate([one.labels for one in found])[order],
    )


def _fold_facts(bench: Bench) -> Json:
    recipe = fold_recipe(quick=bench.quick).model_dump(mode="json")
    return {"recipe": recipe, "folds": FOLDS, "kept": REPEATED, "augment": augment.VERSION}


def _learnt(work: Path, start: Path, recipe: Recipe, cells: list[LabelledCell], name: str) -> CellModel:
    model = started(start, recipe)
    kept, crops = CropCache(work / "crops", size=recipe.input_size).load(cells, between=lambda: None)
    source = CropSource(crops, model, recipe.input_size, augment.STRENGTHS[recipe.augmentation])
    loss = train(model, source, positions(kept), recipe, seed=1, between=Progress(name, recipe, len(kept)))
    say(f"{name}: loss {loss:.3f} on {len(kept)} images")
    return model.to("cpu")


def measure(bench: Bench) -> Measured:
    """Judge every cell of the smaller source once."""
    cells = [cell for cell in bench.cells("bccd", "train", "val", "test") if cell.cls is not CellClass.BASOPHIL]
    found = out_of_fold(bench, cells, bench.cells("pbc", "train"))
    said = among_five(found)
    hits = np.asarray(said == found.labels)
    held = np.array([cell.split is Split.TEST for cell in cells])
    rows = [
        share("BCCD boxes, grouped 5-fold, four classes, accuracy", hits, goal=0.89),
        share("the same folds, fields of the test split alone", hits[held]),
        share("the same, asked among all eight", found.logits.argmax(axis=1) == found.labels),
        balanced("the same, balanced accuracy", found),
    ]
    for position in np.unique(found.labels):
        there = found.labels == position
        rows.append(share(f"BCCD 5-fold, recall, {CLASSES[position].info.name}", hits[there]))
    return Measured(rows)


def _seconds(*, quick: bool) -> float:
    return fold_seconds(fold_recipe(quick=quick), folds=FOLDS, images=SMALL + REPEATED) + 20


SECTION = Section(
    name="folds",
    title="The smaller laboratory, every cell judged once",
    measure=measure,
    version=1,
    seconds=(_seconds(quick=True), _seconds(quick=False)),
    models=("pbc",),
    also=_fold_facts,
    method=(
        "Five models, by eager torch: each starts from the model of PBC alone and learns from four fifths of BCCD's "
        "fields and 150 cells of PBC, by subtle looks. Its one typed basophil is left out. Epochs, looks and how many "
        "cells of PBC are repeated were chosen by the folds' answers on BCCD's train and validation groups, which "
        "these folds hold again: the row of the test split's fields is free of that choice."
    ),
)
