"""Measures a model on the rows of a label file: accuracy, calibration, prediction sets, unknown images."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, Reading, current_model_dir, load_model
from client_node.datasets.images import read_limited
from client_node.datasets.importers.candidate import Candidate
from client_node.datasets.importers.csv import candidates
from client_node.datasets.labelled import Box, Kind, as_predicted
from shared.contracts.analysis import EvaluationClass, EvaluationOutput, SkippedFile
from shared.contracts.errors import DataInvalidError, NoLabelsError, UsageError
from shared.contracts.ontology import CellClass, parse_class
from shared.vision.images import load_image
from shared.vision.preprocessing import Pixels

Progress = Callable[[int, int], None]
_BINS: Final = 15
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of a label file and what the model says of its cell."""

    path: Path
    shown: str
    """The path as the label file has it."""
    box: Box | None
    truth: CellClass
    """As the model would call it: the parent of a subclass that it does not predict."""
    reading: Reading

    @property
    def right(self) -> bool:
        """Whether the model named the class."""
        return self.truth is self.reading.cls


@dataclass(frozen=True, slots=True)
class Judgement:
    """A model and all that it was measured by."""

    model: LoadedModel
    cells: tuple[Judged, ...]
    skipped: tuple[SkippedFile, ...]


def evaluate_csv(
    home: Path | None, data: Path, labels: Path, *, model_dir: Path | None = None, progress: Progress | None = None
) -> EvaluationOutput:
    """Return the figures of a model on a label file; see `judge_csv`."""
    return figures(judge_csv(home, data, labels, model_dir=model_dir, progress=progress))


def judge_csv(
    home: Path | None, data: Path, labels: Path, *, model_dir: Path | None = None, progress: Progress | None = None
) -> Judgement:
    """Ask a model about exactly the rows of ``labels`` that are a cell or box with a class.

    A row whose class the model does not predict counts, and counts as wrong; a subclass of a predicted class (band
    neutrophil) counts as that class. Other rows, and images that cannot be read, are listed in ``skipped``.

    Args:
        home: the node's home folder, whose current model is used unless ``model_dir`` is given.
        data: the folder that the paths in ``labels`` are relative to.
        labels: a label file, see `client_node.datasets.importers.csv`.
        model_dir: the folder of a model version.
        progress: called with (cells done, cells in all).

    Raises:
        NoLabelsError: no row can be evaluated.
        ModelInvalidError: the model cannot be loaded.
        UsageError: neither ``home`` nor ``model_dir`` is given.
    """
    if home is None and model_dir is None:
        raise UsageError("Name the node's home with --home or a model folder with --model.")
    model = load_model(model_dir or current_model_dir(home or Path()))
    rows, skipped = _rows(data, labels)
    judged: list[Judged] = []
    for chunk in _chunks(model, rows, skipped):
        readings = model.read(crop for _, _, crop in chunk)
        for (row, cls, _), reading in zip(chunk, readings, strict=True):
            truth = as_predicted(cls, model.classes) or cls
            judged.append(Judged(row.path, row.shown, row.box, truth, reading))
        if progress is not None:
            progress(len(judged), len(rows))
    if not judged:
        raise NoLabelsError("No row of the label file could be evaluated: it needs cells or boxes with a known class.")
    return Judgement(model, tuple(judged), tuple(skipped))


def _rows(data: Path, labels: Path) -> tuple[list[tuple[Candidate, CellClass]], list[SkippedFile]]:
    rows, skipped = [], []
    for found in candidates(data, labels):
        if isinstance(found, SkippedFile):
            skipped.append(found)
            continue
        if found.kind is Kind.OBJECT:
            continue  # marked in a field: nothing to classify
        cls = parse_class(found.label) if found.label else None
        if found.kind is Kind.FIELD:
            skipped.append(SkippedFile(path=found.shown, reason="a whole field, no cell"))
        elif cls is None:
            reason = f"unknown label {found.label!r}" if found.label else "the row names no class"
            skipped.append(SkippedFile(path=found.shown, reason=reason))
        else:
            rows.append((found, cls))
    return rows, skipped


def _chunks(
    model: LoadedModel, rows: list[tuple[Candidate, CellClass]], skipped: list[SkippedFile]
) -> Iterator[list[tuple[Candidate, CellClass, Pixels]]]:
    """Crops of some rows at a time, each image read once; what cannot be read joins ``skipped``."""
    chunk: list[tuple[Candidate, CellClass, Pixels]] = []
    for path, group in groupby(sorted(rows, key=lambda row: row[0].path), key=lambda row: row[0].path):
        batch = list(group)
        try:
            image = load_image(read_limited(path))
        except DataInvalidError as error:
            skipped.extend(SkippedFile(path=row.shown, reason=error.message) for row, _ in batch)
            continue
        for row, cls in batch:
            try:
                chunk.append((row, cls, model.cut(image, row.box)))
            except DataInvalidError as error:
                skipped.append(SkippedFile(path=row.shown, reason=error.message))
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def figures(judgement: Judgement) -> EvaluationOutput:
    """Return the figures of a judgement."""
    model, skipped = judgement.model, judgement.skipped
    truths, readings = [one.truth for one in judgement.cells], [one.reading for one in judgement.cells]
    confusion: defaultdict[CellClass, defaultdict[CellClass, int]] = defaultdict(lambda: defaultdict(int))
    for truth, reading in zip(truths, readings, strict=True):
        confusion[truth][reading.cls] += 1
    correct = np.array([truth is reading.cls for truth, reading in zip(truths, readings, strict=True)])
    per_class = class_table(confusion)
    covered = [truth in reading.prediction_set for truth, reading in zip(truths, readings, strict=True)]
    return EvaluationOutput(
        n=len(truths),
        accuracy=float(correct.mean()),
        macro_f1=float(np.mean([row.f1 for row in per_class.values()])),
        per_class=per_class,
        confusion={truth: dict(confusion[truth]) for truth in CellClass if truth in confusion},
        ece=expected_calibration_error(np.array([reading.probability for reading in readings]), correct),
        coverage=float(np.mean(covered)),
        mean_set_size=float(np.mean([len(reading.prediction_set) for reading in readings])),
        ood_fraction=float(np.mean([reading.ood_score > 1.0 for reading in readings])),
        model_version=model.card.version,
        engine=model.engine.name,
        skipped=skipped,
    )


def class_table(confusion: Mapping[CellClass, Mapping[CellClass, int]]) -> dict[CellClass, EvaluationClass]:
    """Return precision, recall and F1 of every class that occurs as truth or prediction; 0 where undefined.

    The macro F1 is the plain mean over these classes, as scikit-learn computes it.
    """
    predicted: defaultdict[CellClass, int] = defaultdict(int)
    for row in confusion.values():
        for cls, count in row.items():
            predicted[cls] += count
    table = {}
    for cls in CellClass:
        row = confusion.get(cls, {})
        support = sum(row.values())
        if not support and not predicted[cls]:
            continue
        hits = row.get(cls, 0)
        precision = hits / predicted[cls] if predicted[cls] else 0.0
        recall = hits / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        table[cls] = EvaluationClass(precision=precision, recall=recall, f1=f1, support=support)
    return table


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = _BINS) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins, weighted by their cells."""
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = 0.0
    for place in range(bins):
        inside = places == place
        if inside.any():
            gaps += abs(float(correct[inside].mean()) - float(confidence[inside].mean())) * float(inside.mean())
    return min(1.0, gaps)
