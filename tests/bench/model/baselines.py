"""The "conventional" row: classical colour, texture and shape features of a cell, with an SVM and a random forest.

Beside them the plainest use of a network: a linear probe on the pretrained features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed, rgb2hsv, rgb2lab
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.measure import label, regionprops
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from client_node.analysis.detection.proposals import optical_density
from client_node.datasets.catalogue import LabelledCell
from shared.contracts.training import Recipe
from shared.vision import preprocessing
from shared.vision.model import build
from tests.bench.model.evaluate import Answers, Row, answers_of, macro_f1, row, share
from tests.bench.model.train import CLASSES, positions, say

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_SIDE: Final = 96
_BINS: Final = 12
_LEVELS: Final = 32
_DENSE: Final = 0.35
"""Optical density in red light from which a pixel of a crop is taken for nucleus."""


def described(image: preprocessing.Pixels) -> Floats:
    """Return the classical features of a crop (square RGB uint8): colour, texture, shape of nucleus."""
    crop = preprocessing.scale(image, _SIDE)
    planes = np.concatenate([rgb2hsv(crop), rgb2lab(crop) / 100.0, rgb2hed(crop)], axis=2).reshape(-1, 9)
    moments = np.concatenate([planes.mean(axis=0), planes.std(axis=0), *np.quantile(planes, [0.1, 0.5, 0.9], axis=0)])
    histograms = np.concatenate(
        [np.histogram(crop[..., channel], _BINS, (0, 256))[0] / _SIDE**2 for channel in range(3)]
    )
    grey = (crop.mean(axis=2) / 256.0 * _LEVELS).astype(np.uint8)
    pairs = graycomatrix(grey, [1, 3], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], _LEVELS, symmetric=True, normed=True)
    texture = [
        value for name in ("contrast", "homogeneity", "energy", "correlation") for value in graycoprops(pairs, name)
    ]
    patterns = local_binary_pattern(crop.mean(axis=2).astype(np.uint8), 8, 1, "uniform")
    lbp = np.histogram(patterns, 10, (0, 10))[0] / _SIDE**2
    return np.concatenate([moments, histograms, np.mean(texture, axis=1), lbp, _nucleus(crop)])


def _nucleus(crop: preprocessing.Pixels) -> Floats:
    density = optical_density(crop)[..., 0]
    found = label(density > _DENSE)
    parts = sorted(regionprops(found), key=lambda part: -part.area)
    if not parts:
        return np.zeros(7)
    largest = parts[0]
    area = sum(part.area for part in parts)
    return np.array(
        [
            area / _SIDE**2, largest.area / area, largest.eccentricity, largest.solidity, largest.extent,
            sum(part.area > 0.05 * area for part in parts), float(density[found > 0].mean()),
        ]
    )  # fmt: skip


def baseline_rows(work: Path, train: Sequence[LabelledCell], test: Sequence[LabelledCell], recipe: Recipe) -> list[Row]:
    """Return accuracy and macro-F1 of each baseline on the same cells as the model's own rows."""
    file = work / "classical.npz"
    if not file.is_file():
        say("classical features")
        np.savez(file, train=_features(train), test=_features(test))
    stored = np.load(file)
    truth, goal = positions(list(train)), positions(list(test))
    machines = {
        "SVM on classical features": make_pipeline(StandardScaler(), SVC(C=10.0, class_weight="balanced")),
        "random forest on classical features": RandomForestClassifier(
            500, class_weight="balanced_subsample", random_state=0
        ),
    }
    rows: list[Row] = []
    for name, machine in machines.items():
        machine.fit(stored["train"], truth)
        rows += _rows(name, np.asarray(machine.predict(stored["test"])), goal)
    say("linear probe on pretrained features")
    known, seen = _pretrained(recipe, train), _pretrained(recipe, test)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    probe.fit(known.features, truth)
    return rows + _rows("linear probe on pretrained features", np.asarray(probe.predict(seen.features)), goal)


def _features(cells: Sequence[LabelledCell]) -> Floats:
    return np.stack(
        [described(preprocessing.cell_crop(preprocessing.load_image(cell.path), cell.box)) for cell in cells]
    )


def _pretrained(recipe: Recipe, cells: Sequence[LabelledCell]) -> Answers:
    return answers_of(build(recipe.backbone, len(CLASSES)), recipe, cells)


def _rows(name: str, said: Labels, truth: Labels) -> list[Row]:
    core = truth < 5  # the core five stand first in the models' classes
    return [
        share(f"{name}: PBC five classes, accuracy (among eight)", said[core] == truth[core]),
        row(f"{name}: PBC eight classes, macro-F1", macro_f1(truth, said), None, None, len(truth), goal=None),
    ]
