"""What a trained model does on held-out groups: figures with intervals, from the outputs of the ONNX file itself."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from client_node.analysis.evaluate import expected_calibration_error
from client_node.analysis.model import read_card
from client_node.datasets.catalogue import LabelledCell
from shared.contracts.ontology import CORE_FIVE
from shared.contracts.training import Recipe
from shared.statistics import clopper_pearson
from shared.vision import backbones, calibration, preprocessing
from shared.vision.engine import CPU_BATCH, OnnxEngine
from shared.vision.model import CellModel
from shared.vision.precision import ONNX_FILE
from tests.bench.model.train import CLASSES, positions

Row = dict[str, str | float | int | bool | None]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

PRESENTED: Final = dict(zip(CORE_FIVE, (96.1, 94.7, 93.2, 95.0, 92.4), strict=True))
"""Precision, in percent, of the seed presentation's ResNet-50 row."""
_CORE: Final = [CLASSES.index(cls) for cls in CORE_FIVE]
_BOOTSTRAPS: Final = 2000
_EQUAL_SIDE, _EQUAL_QUALITY = 112, 85


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs on N cells."""

    logits: Floats
    features: Floats
    labels: Labels


Looked = Callable[[preprocessing.Pixels], preprocessing.Pixels]


def answers(folder: Path, cells: Sequence[LabelledCell], *, through: Looked | None = None) -> Answers:
    """Run the model in ``folder`` on cells as the analysis would; ``through`` changes each crop first."""
    card = read_card(folder)
    engine = OnnxEngine(folder / ONNX_FILE, len(card.recipe.classes))

    def run(batch: Floats) -> tuple[Floats, Floats]:
        outputs = engine.run(batch)
        return outputs.logits, outputs.features

    return _answers(run, card.recipe, cells, through)


def answers_of(model: CellModel, recipe: Recipe, cells: Sequence[LabelledCell]) -> Answers:
    """Run a model in training on cells as the analysis would."""

    def run(batch: Floats) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            logits, features, _ = model(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
        return logits.numpy(), features.numpy()

    return _answers(run, recipe, cells, None)


def _answers(
    run: Callable[[Floats], tuple[Floats, Floats]], recipe: Recipe, cells: Sequence[LabelledCell],
    through: Looked | None,
) -> Answers:  # fmt: skip
    entry = backbones.get(recipe.backbone)
    logits, features = [], []
    for start in range(0, len(cells), CPU_BATCH):
        crops = [
            preprocessing.cell_crop(preprocessing.load_image(cell.path), cell.box)
            for cell in cells[start : start + CPU_BATCH]
        ]
        if through is not None:
            crops = [through(crop) for crop in crops]
        inputs = [preprocessing.to_input(crop, recipe.input_size, entry.mean, entry.std) for crop in crops]
        found = run(np.stack(inputs))
        logits.append(found[0])
        features.append(found[1])
    return Answers(np.concatenate(logits), np.concatenate(features), positions(list(cells)))


def equalised(crop: preprocessing.Pixels) -> preprocessing.Pixels:
    """Bring a crop to one size and one JPEG quality, so that a source does not show by these."""
    buffer = io.BytesIO()
    Image.fromarray(preprocessing.scale(crop, _EQUAL_SIDE)).save(buffer, "JPEG", quality=_EQUAL_QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


def classification(test: Answers) -> list[Row]:
    """Return five-class accuracy and precisions, and eight-class accuracy and macro-F1."""
    core = np.isin(test.labels, _CORE)
    five, truth = np.array(_CORE)[test.logits[core][:, _CORE].argmax(axis=1)], test.labels[core]
    eight = test.logits.argmax(axis=1)
    rows = [
        share("PBC five classes, accuracy (asked among the five)", five == truth, goal=0.982),
        share("PBC the same cells, asked among all eight", eight[core] == truth),
    ]
    for cls in CORE_FIVE:
        said = five == CLASSES.index(cls)
        rows.append(share(f"PBC precision, {cls.info.name}", truth[said] == five[said], goal=PRESENTED[cls] / 100))
    rows.append(share("PBC eight classes, accuracy", eight == test.labels))
    low, high = _bootstrap(test.labels, eight)
    rows.append(row("PBC eight classes, macro-F1", macro_f1(test.labels, eight), low, high, len(eight), goal=0.93))
    return rows


def asked_among_five(test: Answers) -> NDArray[np.bool_]:
    """Return of which cells the likeliest of the core five classes is the right one."""
    return np.asarray(np.array(_CORE)[test.logits[:, _CORE].argmax(axis=1)] == test.labels)


def doubt(validation: Answers, test: Answers, reference: Floats) -> list[Row]:
    """Return calibration error, and coverage and size of the prediction sets at 99 %, fitted on ``validation``."""
    adapter = calibration.fit_adapter(
        validation.logits, validation.features, validation.labels, reference=reference, level=0.99
    )
    applied = calibration.apply(adapter, test.logits, test.features)
    right = test.logits.argmax(axis=1) == test.labels
    error = expected_calibration_error(applied.probabilities.max(axis=1), right)
    covered = applied.sets[np.arange(len(test.labels)), test.labels]
    count = len(test.labels)
    return [
        row("expected calibration error after scaling, PBC", error, None, None, count, goal=0.03, at_most=True),
        share("conformal 99 %, coverage, PBC", covered, goal=0.98),
        row("conformal 99 %, mean set size, PBC", float(applied.sets.sum(axis=1).mean()), None, None, count, goal=1.2,
            at_most=True),
        share("PBC test cells called out of distribution", applied.ood_scores > 1.0),
    ]  # fmt: skip


def novelty(reference: Floats, validation: Floats, known: Floats, unknown: Floats, name: str) -> list[Row]:
    """Return how well the feature distance tells ``unknown`` cells from ``known`` ones, all never trained on."""
    labels, nothing = np.zeros(len(validation), np.int64), np.zeros((len(validation), 2), np.float32)
    adapter = calibration.fit_adapter(nothing, validation, labels, reference=reference)

    def score(features: Floats) -> NDArray[np.float64]:
        return calibration.apply(adapter, np.zeros((len(features), 2), np.float32), features).ood_scores

    inside, outside = score(known), score(unknown)
    random = np.random.default_rng(0)
    draws = [
        area(random.choice(inside, len(inside)), random.choice(outside, len(outside))) for _ in range(_BOOTSTRAPS // 4)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    count = len(inside) + len(outside)
    return [
        row(f"out of distribution, AUROC, {name}", area(inside, outside), float(low), float(high), count, goal=0.90),
        share(f"{name}: unknown cells beyond the threshold", outside > 1.0),
        share(f"{name}: known cells beyond the threshold", inside > 1.0),
    ]


def balanced(name: str, test: Answers, goal: float | None) -> Row:
    """Return balanced accuracy over the core classes that have at least two cells, asked among the five."""
    core = np.isin(test.labels, _CORE)
    said, truth = np.array(_CORE)[test.logits[core][:, _CORE].argmax(axis=1)], test.labels[core]
    there = [position for position in _CORE if (truth == position).sum() >= 2]
    keep = np.isin(truth, there)
    said, truth = said[keep], truth[keep]
    random = np.random.default_rng(0)

    def of(places: NDArray[np.int64]) -> float:
        recalls = [(said[places] == p)[truth[places] == p].mean() for p in there if (truth[places] == p).any()]
        return float(np.mean(recalls))

    draws = [of(random.integers(0, len(truth), len(truth))) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return row(name, of(np.arange(len(truth))), float(low), float(high), len(truth), goal=goal)


def area(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often an outside score lies above an inside one, ties half."""
    order = np.sort(inside)
    below, upto = np.searchsorted(order, outside, "left"), np.searchsorted(order, outside, "right")
    return float((below + upto).mean() / (2 * len(inside)))


def macro_f1(truth: Labels, said: Labels) -> float:
    """Return the mean F1 over the classes of `CLASSES` that occur."""
    scores = []
    for position in range(len(CLASSES)):
        hits = ((truth == position) & (said == position)).sum()
        all_of = (truth == position).sum() + (said == position).sum()
        if all_of:
            scores.append(2 * hits / all_of)
    return float(np.mean(scores))


def _bootstrap(truth: Labels, said: Labels) -> tuple[float, float]:
    random = np.random.default_rng(0)
    places = random.integers(0, len(truth), (_BOOTSTRAPS, len(truth)))
    low, high = np.quantile([macro_f1(truth[place], said[place]) for place in places], [0.025, 0.975])
    return float(low), float(high)


def share(measure: str, hits: NDArray[np.bool_], *, goal: float | None = None) -> Row:
    """Return a share as a row, with its exact interval."""
    count, total = int(hits.sum()), len(hits)
    low, high = clopper_pearson(count, total) if total else (0.0, 100.0)
    return row(measure, count / total if total else 0.0, low / 100, high / 100, total, goal=goal)


def row(
    measure: str, value: float, low: float | None, high: float | None, n: int, *, goal: float | None,
    at_most: bool = False,
) -> Row:  # fmt: skip
    """Return one line of results.json; without a goal ``holds`` is None."""
    holds = None if goal is None else bool(value <= goal if at_most else value >= goal)
    return {"measure": measure, "value": value, "low": low, "high": high, "n": n, "goal": goal, "holds": holds}
