"""What a trained model says of cells, by the ONNX file that a node runs or, where it has none yet, by eager torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, load_model
from client_node.datasets.labelled import LabelledCell
from client_node.models.view import shown
from shared.contracts.training import Recipe
from shared.vision import backbones, preprocessing
from shared.vision.colour import SiteView
from shared.vision.engine import CPU_BATCH
from shared.vision.images import load_image
from shared.vision.model import CellModel
from shared.vision.precision import Precision
from tests.bench.model.rows import Row, area, macro_f1, row, share
from tests.bench.model.stages import positions

__all__ = ["Answers", "Looked", "Row", "answers", "answers_in", "answers_of", "area", "macro_f1", "row", "share"]

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Looked = Callable[[preprocessing.Pixels], preprocessing.Pixels]
Run = Callable[[Floats], tuple[Floats, Floats]]
"""From a batch of normalised images to its logits and features."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs on N cells."""

    logits: Floats
    features: Floats
    labels: Labels

    def of(self, keep: NDArray[np.bool_]) -> "Answers":
        """Return those on some of the cells."""
        return Answers(self.logits[keep], self.features[keep], self.labels[keep])


def loaded(folder: Path) -> LoadedModel:
    """Return the model in ``folder``, with the calibration that lies there, by its ONNX file."""
    return load_model(folder, precision=Precision.FP32)


def answers(
    model: LoadedModel | Path, cells: Sequence[LabelledCell], *, through: Looked | None = None, turned: bool = False
) -> Answers:
    """Run a model by its ONNX file on cells in the plain view.

    ``through`` changes each crop first; ``turned`` averages over the eight symmetries of the square.
    """
    model = loaded(model) if isinstance(model, Path) else model
    return _answers(_turned(_engine(model)) if turned else _engine(model), model.card.recipe, cells, through)


def answers_in(model: LoadedModel, cells: Sequence[LabelledCell], view: SiteView | None = None) -> Answers:
    """Run a model by its ONNX file on cells in a site's view: that of its adapter, unless another is given."""
    kept, logits, features = shown(model, cells, view or model.adapter.view, pause=lambda: None)
    return Answers(logits, features, positions(kept))


def calibrated(model: LoadedModel, found: Answers) -> Answers:
    """Return answers as a hospital reads them: the logits are of the probabilities that its calibration makes."""
    chances = model.calibrated(found.logits, found.features).probabilities
    return Answers(np.log(np.maximum(chances, 1e-12)).astype(np.float32), found.features, found.labels)


def answers_of(model: CellModel, recipe: Recipe, cells: Sequence[LabelledCell]) -> Answers:
    """Run a model in training, by eager torch, on cells in the plain view."""

    def run(batch: Floats) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            logits, features, _ = model(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
        return logits.numpy(), features.numpy()

    return _answers(run, recipe, cells, None)


def _engine(model: LoadedModel) -> Run:
    def run(batch: Floats) -> tuple[Floats, Floats]:
        outputs = model.engine.run(batch)
        return outputs.logits, outputs.features

    return run


def _turned(run: Run) -> Run:
    def averaged(batch: Floats) -> tuple[Floats, Floats]:
        looks = [np.rot90(side, turn, (2, 3)) for side in (batch, batch[..., ::-1]) for turn in range(4)]
        found = [run(np.ascontiguousarray(look)) for look in looks]
        return np.mean([one[0] for one in found], axis=0), np.mean([one[1] for one in found], axis=0)

    return averaged


def _answers(run: Run, recipe: Recipe, cells: Sequence[LabelledCell], through: Looked | None) -> Answers:
    entry = backbones.get(recipe.backbone)
    logits, features = [], []
    for start in range(0, len(cells), CPU_BATCH):
        crops = [preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in cells[start : start + CPU_BATCH]]
        if through is not None:
            crops = [through(crop) for crop in crops]
        inputs = [preprocessing.to_input(crop, recipe.input_size, entry.mean, entry.std) for crop in crops]
        found = run(np.stack(inputs))
        logits.append(found[0])
        features.append(found[1])
    return Answers(np.concatenate(logits), np.concatenate(features), positions(cells))
