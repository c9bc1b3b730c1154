"""Tries an installed model on a site's own cells and fits the site's calibration of it; needs no torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.analysis.model import current_model_dir, read_card
from client_node.datasets.catalogue import Catalogue, LabelledCell
from client_node.policy import load_policy
from client_node.training.evaluation import site_metrics
from client_node.training.manifest import write_atomically
from shared.contracts.errors import DataInvalidError, ModelInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, SiteMetrics
from shared.vision import backbones, calibration
from shared.vision.engine import Engine, load_engine
from shared.vision.preprocessing import cell_crop, load_image, to_input

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

ADAPTER_FILE = "adapter.json"
_BATCH = 16
_REFERENCE = 400
"""Training cells, at most, on which the feature space is fitted."""

log = structlog.get_logger(__name__)


def positions(cells: Sequence[LabelledCell], classes: tuple[CellClass, ...]) -> Labels:
    """Return the position of each cell's class in ``classes``."""
    return np.array([classes.index(cell.cls) for cell in cells], np.int64)


def allowed_cells(home: Path, split: str, classes: tuple[CellClass, ...]) -> list[LabelledCell]:
    """Return the labelled cells of ``split`` that the hospital's policy lets training and evaluation use."""
    policy = load_policy(home)
    return [cell for cell in Catalogue(home).cells(split=split, classes=classes) if policy.allows_source(cell.source)]


def try_model(home: Path, model_dir: Path) -> tuple[SiteMetrics, SiteMetrics | None]:
    """Fit the site's adapter of the model in ``model_dir`` and write it there.

    Returns the figures of that model, and of the one the node runs now (None where it runs none), on the
    validation cells; both have ``n`` 0 where the site has no such cells: the model's own calibration then stands.
    Raises `ModelInvalidError` if the model cannot be loaded.
    """
    recipe = read_card(model_dir).recipe
    engine = load_engine(model_dir, recipe)
    cells, logits, features = run(engine, recipe, allowed_cells(home, "val", recipe.classes))
    labels = positions(cells, recipe.classes)
    if cells:
        known = allowed_cells(home, "train", recipe.classes)
        step = max(1, len(known) // _REFERENCE)
        _, _, reference = run(engine, recipe, known[::step])
        adapter = calibration.fit_adapter(logits, features, labels, reference=reference)
        write_atomically(model_dir / ADAPTER_FILE, adapter.model_dump_json().encode())
    return site_metrics(logits, labels, recipe.classes), current_metrics(home, "val", other_than=model_dir)


def current_metrics(home: Path, split: str, *, other_than: Path | None = None) -> SiteMetrics | None:
    """Return the figures of the model that the node runs now; None where it runs none or it cannot be loaded."""
    try:
        folder = current_model_dir(home)
        if other_than is not None and folder.resolve() == other_than.resolve():
            return None
        recipe = read_card(folder).recipe
        engine = load_engine(folder, recipe)
    except ModelInvalidError as error:
        log.info("training.no_current_model", reason=error.message)
        return None
    cells, logits, _ = run(engine, recipe, allowed_cells(home, split, recipe.classes))
    return site_metrics(logits, positions(cells, recipe.classes), recipe.classes)


def run(engine: Engine, recipe: Recipe, cells: Sequence[LabelledCell]) -> tuple[list[LabelledCell], Floats, Floats]:
    """Return the cells that could be read, and their (logits, features)."""
    entry = backbones.get(recipe.backbone)
    kept: list[LabelledCell] = []
    logits = [np.zeros((0, len(recipe.classes)), np.float32)]
    features = [np.zeros((0, entry.feature_size), np.float32)]
    for chunk, images in _batches(cells, recipe, entry):
        kept.extend(chunk)
        outputs = engine.run(images)
        logits.append(outputs[0])
        features.append(outputs[1])
    return kept, np.concatenate(logits), np.concatenate(features)


def _batches(
    cells: Sequence[LabelledCell], recipe: Recipe, entry: backbones.BackboneEntry
) -> Iterator[tuple[list[LabelledCell], Floats]]:
    for start in range(0, len(cells), _BATCH):
        kept, images = [], []
        for cell in cells[start : start + _BATCH]:
            try:
                crop = cell_crop(load_image(cell.path), cell.box)
            except DataInvalidError as error:
                log.warning("training.cell_skipped", cell=cell.hash, reason=error.message)
                continue
            kept.append(cell)
            images.append(to_input(crop, recipe.input_size, entry.mean, entry.std))
        if kept:
            yield kept, np.stack(images)
