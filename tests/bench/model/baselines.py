"""The "conventional" row: classical colour, texture and shape features of a cell, with an SVM and a random forest.

Beside them the plainest use of a network: a linear probe on the pretrained features.
"""

from collections.abc import Sequence
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
from client_node.datasets.labelled import LabelledCell
from shared.vision import preprocessing
from shared.vision.images import load_image
from shared.vision.model import build
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import answers_of
from tests.bench.model.figures import CORE
from tests.bench.model.rows import Row, figure, macro_f1, share
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES, RECIPE, positions
from tests.bench.model.train import chosen

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


def measure(bench: Bench) -> Measured:
    """Measure each baseline on the same cells as the model's own rows."""
    train, test = chosen(bench.home, ("pbc",)), bench.cells("pbc", "test")
    truth, goal = positions(train), positions(test)
    say("classical features")
    known, seen = _features(train), _features(test)
    machines = {
        "SVM on classical features": make_pipeline(StandardScaler(), SVC(C=10.0, class_weight="balanced")),
        "random forest on classical features": RandomForestClassifier(
            500, class_weight="balanced_subsample", random_state=0
        ),
    }
    rows: list[Row] = []
    for name, machine in machines.items():
        machine.fit(known, truth)
        rows += _rows(name, np.asarray(machine.predict(seen)), goal)
    say("linear probe on pretrained features")
    recipe = RECIPE
    pretrained = build(recipe.backbone, len(CLASSES))
    features = [answers_of(pretrained, recipe, cells).features for cells in (train, test)]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    probe.fit(features[0], truth)
    return Measured(rows + _rows("linear probe on pretrained features", np.asarray(probe.predict(features[1])), goal))


def _features(cells: Sequence[LabelledCell]) -> Floats:
    return np.stack([described(preprocessing.cell_crop(load_image(cell.path), cell.box)) for cell in cells])


def _rows(name: str, said: Labels, truth: Labels) -> list[Row]:
    core = np.isin(truth, CORE)
    return [
        share(f"{name}: PBC five classes, accuracy (among eight)", said[core] == truth[core]),
        figure(f"{name}: PBC eight classes, macro-F1", lambda some: macro_f1(truth[some], said[some]), len(truth)),
    ]


SECTION: Final = Section(
    name="baselines",
    title="Beside older methods",
    measure=measure,
    version=1,
    seconds=(330, 330),
    whole_only=True,
    method=(
        "The same test cells, and as many training cells of PBC as the model of that source has. Classical features: "
        "colour moments in three colour spaces, histograms, grey-level co-occurrence, local binary patterns, and the "
        "nucleus' shape. Settings are common ones; none was tuned."
    ),
)
