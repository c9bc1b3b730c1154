"""A candidate on a site's cells, shown as analysis would show them: plain, or in the view of the model in use here.

The model in use is judged in its view; a candidate judged in the plain one alone would look worse than it will be.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from client_node.analysis.detection.compare import compare
from client_node.analysis.model import current_model_dir, load_model
from client_node.datasets.labelled import LabelledCell, LabelledField
from client_node.models.personal import Seen, seen
from client_node.models.view import CLEARLY, LEAST_CELLS
from client_node.training.cache import Between
from client_node.training.site import Floats, positions
from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import FinderMetrics, Recipe
from shared.vision import backbones, calibration
from shared.vision.colour import SiteView
from shared.vision.engine import Outputs
from shared.vision.images import load_image
from shared.vision.model import CellModel
from shared.vision.precision import Precision
from shared.vision.preprocessing import Pixels, cell_crop, to_input

_BATCH = 16


def current_view(home: Path, *, own: bool = True) -> SiteView:
    """Return how this site's cells are shown to the model in use; plain where there is none.

    ``own`` false asks for the view that the signed network has, where the site runs one with its own normalisation.
    """
    try:
        return load_model(current_model_dir(home), precision=None if own else Precision.FP32, own=own).adapter.view
    except ModelInvalidError:
        return SiteView()


def suits(
    model: CellModel, recipe: Recipe, cells: Sequence[LabelledCell], plain: Floats, view: SiteView, *, between: Between
) -> bool:
    """Whether a view is clearly better for a candidate on N validation cells than the plain one (its logits: N × K)."""
    if view.plain or len(cells) < LEAST_CELLS:
        return False
    labels = positions(cells, recipe.classes)
    seen = calibration.tempered_loss(in_view(model, recipe, cells, view, between=between), labels)
    return seen < CLEARLY * calibration.tempered_loss(plain, labels)


def in_view(
    model: CellModel, recipe: Recipe, cells: Sequence[LabelledCell], view: SiteView, *, between: Between
) -> Floats:
    """Return a candidate's logits (N × K) of N readable cells, shown in a view."""
    return seen_in_view(model, recipe, cells, view, between=between).logits


def seen_in_view(
    model: CellModel, recipe: Recipe, cells: Sequence[LabelledCell], view: SiteView, *, between: Between
) -> Seen:
    """Return what a candidate says of N readable cells, shown in a view."""
    logits = [np.zeros((0, len(recipe.classes)), np.float32)]
    features = [np.zeros((0, model.entry.feature_size), np.float32)]
    for start in range(0, len(cells), _BATCH):
        between()
        crops = [
            cell_crop(load_image(cell.path), cell.box, surround=view.surround) for cell in cells[start : start + _BATCH]
        ]
        found = _outputs(model, recipe, crops, view)
        logits.append(found.logits)
        features.append(found.features)
    return seen(cells, np.concatenate(logits), np.concatenate(features), recipe.classes)


def finder_metrics(
    model: CellModel, recipe: Recipe, fields: Sequence[LabelledField], view: SiteView, *, between: Between
) -> FinderMetrics | None:
    """Return how a candidate's finder does on a site's fields; see `compare`."""

    def look(crops: Sequence[Pixels]) -> Floats:
        batches = (crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH))
        return np.concatenate([_outputs(model, recipe, batch, view).objects for batch in batches])

    return compare(fields, look, pause=between)


def _outputs(model: CellModel, recipe: Recipe, crops: Sequence[Pixels], view: SiteView) -> Outputs:
    entry, device = backbones.get(recipe.backbone), next(model.parameters()).device
    images = [to_input(view.coloured(crop), recipe.input_size, entry.mean, entry.std) for crop in crops]
    with torch.inference_mode():
        found = model(torch.from_numpy(np.stack(images)).to(device))
    return Outputs(*(value.float().cpu().numpy() for value in found))
