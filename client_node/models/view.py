"""How a site's cells are best shown to a model: chosen on the site's own validation cells, never by more than needed.

Dye and magnification differ between laboratories. Candidates bring the site's dye to that which the model learnt from,
by density, Reinhard's or Macenko's method (`shared.vision.dye`), and cut cells somewhat wider; the plain view stays
unless another is clearly better.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel
from client_node.datasets.labelled import LabelledCell, as_predicted
from shared.contracts.errors import DataInvalidError
from shared.vision import backbones, calibration, colour, dye, preprocessing
from shared.vision.colour import SiteView
from shared.vision.images import load_image

Floats = NDArray[np.float32]
Pause = Callable[[], object]
"""Called before each batch: waits for urgent work."""

LEAST_CELLS: Final = 20
MOST_CELLS: Final = 160
SURROUNDS: Final = (1.0, 1.12, 1.25)
CLEARLY: Final = 0.9
"""Share of the plain view's loss that another view must stay below: few cells tell little."""
_BATCH: Final = 8


def chosen_view(model: LoadedModel, cells: Sequence[LabelledCell], *, pause: Pause) -> SiteView:
    """Return the view of the least `calibration.tempered_loss` on the site's validation cells, or the plain one.

    ``cells`` are all of classes that the model predicts; at most `MOST_CELLS`, chosen by their hashes, are used.
    """
    some = sorted(cells, key=lambda cell: cell.hash)[:MOST_CELLS]
    if len(some) < LEAST_CELLS:
        return SiteView()
    found = losses(model, some, pause=pause)
    best = min(found, key=lambda view: found[view])
    return best if found[best] < CLEARLY * found[SiteView()] else SiteView()


def losses(model: LoadedModel, cells: Sequence[LabelledCell], *, pause: Pause) -> dict[SiteView, float]:
    """Return the loss of each candidate on ``cells``, the plain view's among them.

    Each width of crops is cut once, for all ways to change the dye.
    """
    found: dict[SiteView, float] = {}
    views: list[SiteView] = []
    for surround in SURROUNDS:
        kept, crops = _cut(cells, surround, pause)
        if not views:
            views = [SiteView(), *colour.views_towards(dye.stained_pixels(crops), model.card.calibration)]
        for view in (one.model_copy(update={"surround": surround}) for one in views):
            found[view] = _loss(model, kept, crops, view, pause)
    return found


def _loss(
    model: LoadedModel, cells: Sequence[LabelledCell], crops: Sequence[preprocessing.Pixels], view: SiteView,
    pause: Pause,
) -> float:  # fmt: skip
    if not cells:
        return float("inf")
    classes = model.classes
    labels = np.array([classes.index(as_predicted(cell.cls, classes) or cell.cls) for cell in cells], np.int64)
    logits = []
    for start in range(0, len(crops), _BATCH):
        pause()
        logits.append(outputs(model, crops[start : start + _BATCH], view)[0])
    return calibration.tempered_loss(np.concatenate(logits), labels)


def shown(
    model: LoadedModel, cells: Sequence[LabelledCell], view: SiteView, *, pause: Pause
) -> tuple[list[LabelledCell], Floats, Floats]:
    """Return the cells that could be read, and the model's logits (N × K) and features (N × F) of them in a view."""
    kept: list[LabelledCell] = []
    logits: list[Floats] = []
    features: list[Floats] = []
    for batch in _batches(cells, view.surround, pause):
        found = outputs(model, [crop for _, crop in batch], view)
        kept += [cell for cell, _ in batch]
        logits.append(found[0])
        features.append(found[1])
    if not kept:
        return [], np.zeros((0, len(model.classes)), np.float32), np.zeros((0, 1), np.float32)
    return kept, np.concatenate(logits), np.concatenate(features)


def outputs(model: LoadedModel, crops: Sequence[preprocessing.Pixels], view: SiteView) -> tuple[Floats, Floats]:
    """Return the logits and features of crops that were cut for ``view``."""
    recipe = model.card.recipe
    entry = backbones.get(recipe.backbone)
    inputs = [preprocessing.to_input(view.coloured(crop), recipe.input_size, entry.mean, entry.std) for crop in crops]
    found = model.engine.run(np.stack(inputs))
    return found.logits, found.features


def _cut(
    cells: Sequence[LabelledCell], surround: float, pause: Pause
) -> tuple[list[LabelledCell], list[preprocessing.Pixels]]:
    pairs = [pair for batch in _batches(cells, surround, pause) for pair in batch]
    return [cell for cell, _ in pairs], [crop for _, crop in pairs]


def _batches(
    cells: Sequence[LabelledCell], surround: float, pause: Pause
) -> Iterator[list[tuple[LabelledCell, preprocessing.Pixels]]]:
    for start in range(0, len(cells), _BATCH):
        pause()
        batch = []
        for cell in cells[start : start + _BATCH]:
            try:
                batch.append((cell, preprocessing.cell_crop(load_image(cell.path), cell.box, surround=surround)))
            except DataInvalidError:
                continue
        if batch:
            yield batch
