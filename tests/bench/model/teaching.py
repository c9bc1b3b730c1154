"""Few-shot: a subtype taught by a handful of examples, and what is recognised of it among cells never seen."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, Reading, load_model
from client_node.analysis.prototypes import Prototypes, fit
from client_node.analysis.references import fit_space, normalised
from client_node.datasets.labelled import as_predicted
from shared.contracts.ontology import CellClass, parse_class
from shared.vision.images import load_image
from tests.bench.model.rows import Row, row
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section

SUBTYPES: Final = {"PMY": CellClass.PROMYELOCYTE, "MMY": CellClass.METAMYELOCYTE, "BNE": CellClass.BAND_NEUTROPHIL}
COUNTS: Final = (5, 20)
_DRAWS: Final = 20


@dataclass(frozen=True, slots=True)
class _Seen:
    """Cells of a split, by the model."""

    subtypes: NDArray[np.str_]
    classes: tuple[CellClass, ...]
    readings: list[Reading]
    features: NDArray[np.float32]


def teaching_rows(folder: Path, data: Path) -> list[Row]:
    """Return recall and precision of taught subtypes on test cells: means and extremes over draws of examples.

    Examples come from training cells; space and threshold from training and validation cells, as on a node.
    """
    model = load_model(folder)
    with (data / "labels.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["source"] == "pbc" and line["kind"] == "cell"]
    lines.sort(key=lambda line: line["path"])
    say("teaching: features")
    seen = {
        split: _seen(model, data, [line for line in lines if line["split"] == split])
        for split in ("train", "val", "test")
    }
    return [
        line
        for subtype, cls in SUBTYPES.items()
        for count in COUNTS
        for line in _rows(model, seen, subtype, cls, count)
    ]


def _seen(model: LoadedModel, data: Path, lines: Sequence[dict[str, str]]) -> _Seen:
    crops = (model.cut(load_image(data / line["path"]), None) for line in lines)
    readings: list[Reading] = []
    features = []
    for outputs in model.outputs(crops):
        features.append(outputs.features)
        readings.extend(model.readings(outputs))
    named = tuple(parse_class(line["class"]) or CellClass.UNIDENTIFIED for line in lines)
    return _Seen(np.array([line["subtype"] for line in lines]), named, readings, np.concatenate(features))


def _rows(model: LoadedModel, seen: dict[str, _Seen], subtype: str, cls: CellClass, count: int) -> list[Row]:
    train, val, test = seen["train"], seen["val"], seen["test"]
    space = fit_space(train.features)
    points = space(train.features)
    labels = [as_predicted(one, model.classes) for one in train.classes]
    own = np.stack([normalised(points[[label is one for label in labels]].mean(axis=0)) for one in model.classes])
    stands_for = [cls if name == subtype else one for name, one in zip(val.subtypes, val.classes, strict=True)]
    random = np.random.default_rng(0)
    there = np.flatnonzero(train.subtypes == subtype)
    recalls, precisions = [], []
    for _ in range(_DRAWS):
        chosen = random.choice(there, count, replace=False)
        prototype = fit(
            cls, train.features[chosen], [train.readings[place] for place in chosen], classes=model.classes,
            space=space, own=own, cells=space(val.features), labels=stands_for,
        )  # fmt: skip
        used = Prototypes(space, own, (prototype.model_copy(update={"problem": None}),))
        said = np.array([one.provisional for one in used.revise(test.readings, test.features)], bool)
        truth = test.subtypes == subtype
        recalls.append(float(said[truth].mean()))
        precisions.append(float(truth[said].mean()) if said.any() else 0.0)
    number = int((test.subtypes == subtype).sum())
    return [
        row(f"{cls.info.name} taught by {count}: {what} (least–greatest of {_DRAWS} draws)", float(np.mean(values)),
            min(values), max(values), number, goal=None)
        for what, values in (("recall", recalls), ("precision", precisions))
    ]  # fmt: skip


SECTION: Final = Section(
    name="teaching",
    title="Teaching a class by a few examples",
    measure=lambda bench: Measured(teaching_rows(bench.model("both"), bench.data)),
    version=1,
    seconds=(100, 100),
    whole_only=True,
    models=("both",),
    method="As `hematovision-node teach` does it, with features of the ONNX file; nothing is trained anew.",
)
