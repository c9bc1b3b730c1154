"""What structured pruning of a trained model costs and gains: accuracy on unseen groups, speed and size as exported.

After the cut the normalisation layers' statistics are taken anew: those of the whole network no longer fit what is
left, and the product's training leaves them alone. Then the product's loop trains all layers for a bounded number of
steps on training cells.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client_node.datasets.labelled import LabelledCell
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.loop import train
from client_node.training.sources import CropSource, Source
from shared.contracts.training import Recipe
from shared.vision.engine import CPU_BATCH, OnnxEngine
from shared.vision.export import export_onnx
from shared.vision.model import CellModel
from shared.vision.precision import ONNX_FILE
from tests.bench.model.clock import core_ms, middle, one_core
from tests.bench.model.evaluate import Row, answers, row, share
from tests.bench.model.folder import started
from tests.bench.model.prune import prune
from tests.bench.model.train import Progress, positions, say

RATIOS: Final = (0.15, 0.30)
EPOCHS: Final = 2
"""Of at most 2,300 images: 144 steps."""
_RESTATED: Final = 16
_REPEATS: Final = 15


def prune_rows(
    work: Path, folder: Path, recipe: Recipe, learn: Sequence[LabelledCell], test: Sequence[LabelledCell],
    *, ratios: Sequence[float] = RATIOS, epochs: int = EPOCHS,
) -> list[Row]:  # fmt: skip
    """Return accuracy, paired loss, speed and size of the model in ``folder`` as it is and with channels removed.

    ``learn``: training cells for the fine-tuning; ``test``: cells of groups that the model never saw.
    """
    truth, whole = positions(list(test)), folder / ONNX_FILE
    right = _right(folder, test, truth)
    rows = [share("unpruned: accuracy, eight classes, test groups of both sources", right), _size("unpruned", whole)]
    files = {"unpruned": whole}
    for ratio in ratios:
        name = f"{ratio:.0%} of the channels pruned"
        pruned, restated = pruned_folder(work, folder, recipe, learn, ratio=ratio, epochs=epochs)
        files[name] = pruned / ONNX_FILE
        rows.append(share(f"{name}: accuracy before fine-tuning", _right(restated, test, truth)))
        tuned = _right(pruned, test, truth)
        rows += [share(f"{name}: accuracy after it", tuned), paired_loss(f"{name}: paired loss (points)", right, tuned)]
        rows.append(_size(name, files[name]))
    return rows + _speed(files, recipe)


def pruned_folder(
    work: Path, folder: Path, recipe: Recipe, learn: Sequence[LabelledCell], *, ratio: float, epochs: int
) -> tuple[Path, Path]:
    """Return two folders, of the pruned and tuned model and of the same before tuning, each with card and ONNX file."""
    tuned, before = work / "pruned" / f"{ratio:.2f}", work / "pruned" / f"{ratio:.2f}-untuned"
    kept, crops = CropCache(work / "crops", size=recipe.input_size).load(learn, between=lambda: None)
    short = recipe.model_copy(update={"local_epochs": epochs, "patience": 0})

    def tune(model: CellModel) -> None:
        source = CropSource(crops, model, recipe.input_size, augment.STRENGTHS[recipe.augmentation])
        restate(model, source, batch=recipe.batch_size)
        _exported(model.eval(), folder, before, recipe)
        progress = Progress(f"pruned {ratio:.0%}", short, len(kept))
        loss = train(model, source, positions(kept), short, seed=1, between=progress)
        say(f"pruned {ratio:.0%}: loss {loss:.3f} on {len(kept)} images")

    model = prune(started(folder, recipe).to("cpu"), recipe.input_size, ratio, tune)
    _exported(model, folder, tuned, recipe)
    return tuned, before


def _exported(model: CellModel, origin: Path, target: Path, recipe: Recipe) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin / "card.json", target / "card.json")
    export_onnx(model, recipe.input_size, target / ONNX_FILE)


def restate(model: CellModel, source: Source, *, batch: int, batches: int = _RESTATED) -> None:
    """Take the statistics of all normalisation layers anew, as plain means over ``batches`` of looks."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    random = np.random.default_rng(0)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
        layer.training = True
    with torch.no_grad():
        for _ in range(batches):
            model.features(model.trunk(source.draw(random.integers(0, len(source), batch), random)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.training = False


def _right(folder: Path, cells: Sequence[LabelledCell], truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(answers(folder, cells).logits.argmax(axis=1) == truth)


def paired_loss(name: str, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Row:
    """Return how many points of accuracy are lost on the same cells, with the interval of the paired difference."""
    lost, won, count = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    points = (lost - won) / count * 100
    spread = 196 * float(np.sqrt(max(lost + won - (lost - won) ** 2 / count, 0.0))) / count
    return row(name, points, points - spread, points + spread, count, goal=None)


def _size(name: str, file: Path) -> Row:
    return row(f"{name}: ONNX file (MB)", file.stat().st_size / 1e6, None, None, 1, goal=None)


def _speed(files: dict[str, Path], recipe: Recipe) -> list[Row]:
    images = np.random.default_rng(0).normal(0, 0.5, (CPU_BATCH, 3, recipe.input_size, recipe.input_size))
    batch = images.astype(np.float32)
    with one_core():
        engines = {name: OnnxEngine(file, len(recipe.classes), device="cpu") for name, file in files.items()}
        works = {name: partial(engine.run, batch) for name, engine in engines.items()}
        taken = core_ms(works, repeats=_REPEATS)
    return [
        row(f"{name}: ms a crop, one core, fp32", *middle([value / CPU_BATCH for value in values]), len(values),
            goal=None)
        for name, values in taken.items()
    ]  # fmt: skip
