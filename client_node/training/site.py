"""A site's own cells, and how the model that the node runs now does on them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, current_model_dir, load_model
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell, LabelledField
from client_node.models.personal import applied
from client_node.policy import load_policy
from client_node.policy_sections import Purpose
from client_node.training.evaluation import site_metrics
from shared.contracts.errors import DataInvalidError, ModelInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.training import SiteMetrics
from shared.vision.images import load_image
from shared.vision.precision import Precision
from shared.vision.site_head import SiteHead

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


def teaching_fields(home: Path, *, purpose: Purpose) -> list[LabelledField]:
    """Return the training fields with marked cells that the hospital's policy lets be used for ``purpose``.

    None where all are marked only partly: who is only told what is a cell learns to call everything one.
    """
    fields = [one for one in allowed_fields(home, "train", purpose=purpose) if one.cells]
    return fields if any(one.complete for one in fields) else []


def current_metrics(home: Path, split: str, *, own: bool = True) -> SiteMetrics | None:
    """Return the figures of the model that the node runs now, with all that it has of the site's own.

    ``own`` false leaves out what training cells have shaped here: head, normalisation and INT8 form. None where the
    node runs no model or it cannot be loaded.
    """
    try:
        model = load_model(current_model_dir(home), precision=None if own else Precision.FP32, own=own)
    except ModelInvalidError as error:
        log.info("training.no_current_model", reason=error.message)
        return None
    head = model.adapter.head if own else None
    cells, logits = _run(model, head, allowed_cells(home, split, model.classes, purpose="evaluate"))
    return site_metrics(logits, positions(cells, model.classes), model.classes)


def _run(model: LoadedModel, head: SiteHead | None, cells: Sequence[LabelledCell]) -> tuple[list[LabelledCell], Floats]:
    """Return the cells that could be read, and their logits."""
    kept: list[LabelledCell] = []
    logits = [np.zeros((0, len(model.classes)), np.float32)]
    for chunk, images in _batches(cells, model):
        kept.extend(chunk)
        found = model.engine.run(images)
        logits.append(applied(head, found.logits, found.features))
    return kept, np.concatenate(logits)


def _batches(cells: Sequence[LabelledCell], model: LoadedModel) -> Iterator[tuple[list[LabelledCell], Floats]]:
    """Yield the cells that could be read, as analysis shows them to the model at this site."""
    for start in range(0, len(cells), _BATCH):
        kept: list[LabelledCell] = []
        images: list[Floats] = []
        for cell in cells[start : start + _BATCH]:
            try:
                images += model.inputs([model.cut(load_image(cell.path), cell.box)])
            except DataInvalidError as error:
                log.warning("training.cell_skipped", cell=cell.hash, reason=error.message)
                continue
            kept.append(cell)
        if kept:
            yield kept, np.stack(images)
