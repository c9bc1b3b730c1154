"""The figures of a model on held-out cells, as rows: accuracy, precision, calibration, sets, and what is unknown."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client_node.analysis.evaluation import expected_calibration_error
from client_node.analysis.model import LoadedModel
from shared.contracts.ontology import CORE_FIVE
from shared.vision import calibration, preprocessing
from tests.bench.model.evaluate import Answers, Floats
from tests.bench.model.rows import Row, area_row, figure, macro_f1, mean_recall, share
from tests.bench.model.stages import CLASSES

PRESENTED: Final = dict(zip(CORE_FIVE, (96.1, 94.7, 93.2, 95.0, 92.4), strict=True))
"""Precision, in percent, of the seed presentation's ResNet-50 row."""
CORE: Final = [CLASSES.index(cls) for cls in CORE_FIVE]
_EQUAL_SIDE, _EQUAL_QUALITY = 112, 85


def equalised(crop: preprocessing.Pixels) -> preprocessing.Pixels:
    """Bring a crop to one size and one JPEG quality, so that a source does not show by these."""
    buffer = io.BytesIO()
    Image.fromarray(preprocessing.scale(crop, _EQUAL_SIDE)).save(buffer, "JPEG", quality=_EQUAL_QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


def classification(test: Answers, name: str = "PBC") -> list[Row]:
    """Return five-class accuracy and precisions, and eight-class accuracy and macro-F1."""
    core = test.of(np.isin(test.labels, CORE))
    five, truth = among_five(core), core.labels
    eight = test.logits.argmax(axis=1)
    rows = [
        share(f"{name} five classes, accuracy (asked among the five)", five == truth, goal=0.982),
        share(f"{name} the same cells, asked among all eight", core.logits.argmax(axis=1) == truth),
    ]
    for cls in CORE_FIVE:
        said = five == CLASSES.index(cls)
        goal = PRESENTED[cls] / 100
        rows.append(share(f"{name} precision, {cls.info.name}", truth[said] == five[said], goal=goal))
    rows.append(share(f"{name} eight classes, accuracy", eight == test.labels))
    measure = f"{name} eight classes, macro-F1"
    rows.append(figure(measure, lambda some: macro_f1(test.labels[some], eight[some]), len(eight), goal=0.93))
    return rows


def among_five(test: Answers) -> NDArray[np.int64]:
    """Return the likeliest of the core five classes for each cell."""
    return np.asarray(np.array(CORE)[test.logits[:, CORE].argmax(axis=1)], np.int64)


def doubt(model: LoadedModel, test: Answers, name: str = "PBC") -> list[Row]:
    """Return calibration error, and coverage and size of the prediction sets, by the calibration of a model's site."""
    applied = model.calibrated(test.logits, test.features)
    sure, right = applied.probabilities.max(axis=1), applied.probabilities.argmax(axis=1) == test.labels
    sizes, count = applied.sets.sum(axis=1), len(test.labels)
    level = f"conformal {100 * model.adapter.level:.0f} %"

    def error(some: NDArray[np.int64]) -> float:
        return expected_calibration_error(sure[some], right[some])

    return [
        figure(f"expected calibration error after scaling, {name}", error, count, goal=0.03, at_most=True),
        share(f"{level}, coverage, {name}", applied.sets[np.arange(count), test.labels], goal=0.98),
        figure(f"{level}, mean set size, {name}", lambda some: float(sizes[some].mean()), count, goal=1.2,
               at_most=True),
        share(f"{name} test cells called out of distribution", applied.ood_scores > 1.0),
    ]  # fmt: skip


def novelty(reference: Floats, validation: Floats, known: Floats, unknown: Floats, name: str) -> list[Row]:
    """Return how well the feature distance tells ``unknown`` cells from ``known`` ones, all never trained on."""
    labels, nothing = np.zeros(len(validation), np.int64), np.zeros((len(validation), 2), np.float32)
    adapter = calibration.fit_adapter(nothing, validation, labels, reference=reference)

    def score(features: Floats) -> NDArray[np.float64]:
        return calibration.apply(adapter, np.zeros((len(features), 2), np.float32), features).ood_scores

    inside, outside = score(known), score(unknown)
    return [
        area_row(f"out of distribution, AUROC, {name}", inside, outside, goal=0.90),
        share(f"{name}: unknown cells beyond the threshold", outside > 1.0),
        share(f"{name}: known cells beyond the threshold", inside > 1.0),
    ]


def balanced(name: str, test: Answers, goal: float | None = None, *, least: int = 2) -> Row:
    """Return balanced accuracy over the core classes that have at least two cells, asked among the five."""
    there = [position for position in CORE if (test.labels == position).sum() >= least]
    kept = test.of(np.isin(test.labels, there))
    said, truth = among_five(kept), kept.labels
    return figure(name, lambda some: mean_recall(truth[some], said[some]), len(truth), goal=goal)
