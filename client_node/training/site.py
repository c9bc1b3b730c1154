"""A site's own cells, and how the model that the node runs now does on them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.analysis.model import current_model_dir, read_card
from client_node.datasets.catalogue import Catalogue, LabelledCell, LabelledField
from client_node.policy import load_policy
from client_node.policy_sections import Purpose
from client_node.training.evaluation import site_metrics
from shared.contracts.errors import DataInvalidError, ModelInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, SiteMetrics
from shared.vision import backbones
from shared.vision.engine import Engine, load_engine
from shared.vision.images import load_image
from shared.vision.preprocessing import cell_crop, to_input

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

_BATCH = 16

log = structlog.get_logger(__name__)


def positions(cells: Sequence[LabelledCell], classes: tuple[CellClass, ...]) -> Labels:
    """Return the position of each cell's class in ``classes``."""
    return np.array([classes.index(cell.cls) for cell in cells], np.int64)


def allowed_cells(home: Path, split: str, classes: tuple[CellClass, ...], *, purpose: Purpose) -> list[LabelledCell]:
    """Return the labelled cells of ``split`` that the hospital's policy lets be used for ``purpose``."""
    policy, found = load_policy(home), Catalogue(home).cells(split=split, classes=classes)
    return [cell for cell in found if policy.allows_source(cell.source, purpose)]


def allowed_fields(home: Path, split: str, *, purpose: Purpose) -> list[LabelledField]:
    """Return the fields of ``split``, with what is marked in them, that may be used for ``purpose``."""
    policy, found = load_policy(home), Catalogue(home).fields(split=split)
    return [field for field in found if policy.allows_source(field.source, purpose)]


def current_metrics(home: Path, split: str) -> SiteMetrics | None:
    """Return the figures of the model that the node runs now; None where it runs none or it cannot be loaded."""
    try:
        folder = current_model_dir(home)
        recipe = read_card(folder).recipe
        engine = load_engine(folder, recipe)
    except ModelInvalidError as error:
        log.info("training.no_current_model", reason=error.message)
        return None
    cells, logits = _run(engine, recipe, allowed_cells(home, split, recipe.classes, purpose="evaluate"))
    return site_metrics(logits, positions(cells, recipe.classes), recipe.classes)


def _run(engine: Engine, recipe: Recipe, cells: Sequence[LabelledCell]) -> tuple[list[LabelledCell], Floats]:
    """Return the cells that could be read, and their logits."""
    kept: list[LabelledCell] = []
    logits = [np.zeros((0, len(recipe.classes)), np.float32)]
    for chunk, images in _batches(cells, recipe):
        kept.extend(chunk)
        logits.append(engine.run(images).logits)
    return kept, np.concatenate(logits)


def _batches(cells: Sequence[LabelledCell], recipe: Recipe) -> Iterator[tuple[list[LabelledCell], Floats]]:
    entry = backbones.get(recipe.backbone)
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
