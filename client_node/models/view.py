"""How a site's cells are best shown to a model: chosen on the site's own validation cells, never by more than needed.

Dye and magnification differ between laboratories. Candidates bring the site's dye to that which the model learnt from,
and cut cells somewhat wider; the plain view stays unless another is clearly better.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel
from client_node.datasets.catalogue import LabelledCell, as_predicted
from shared.contracts.errors import DataInvalidError
from shared.vision import backbones, calibration, colour, preprocessing
from shared.vision.colour import SiteView

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
    plain = SiteView()
    least = _loss(model, some, plain, pause) * CLEARLY
    best = plain
    for view in _candidates(model, some, pause):
        loss = _loss(model, some, view, pause)
        if loss < least:
            least, best = loss, view
    return best


def _candidates(model: LoadedModel, cells: Sequence[LabelledCell], pause: Pause) -> Iterator[SiteView]:
    views = [SiteView()]
    wanted = model.card.calibration.density
    own = colour.density(crop for batch in _batches(cells, SiteView(), pause) for _, crop in batch)
    if wanted is not None and own is not None:
        views.append(colour.towards(own, wanted))
    for view in views:
        for surround in SURROUNDS:
            candidate = view.model_copy(update={"surround": surround})
            if not candidate.plain:
                yield candidate


def _loss(model: LoadedModel, cells: Sequence[LabelledCell], view: SiteView, pause: Pause) -> float:
    kept, logits, _ = shown(model, cells, view, pause=pause)
    if not kept:
        return float("inf")
    classes = model.classes
    labels = np.array([classes.index(as_predicted(cell.cls, classes) or cell.cls) for cell in kept], np.int64)
    return calibration.tempered_loss(logits, labels)


def shown(
    model: LoadedModel, cells: Sequence[LabelledCell], view: SiteView, *, pause: Pause
) -> tuple[list[LabelledCell], Floats, Floats]:
    """Return the cells that could be read, and the model's logits (N × K) and features (N × F) of them in a view."""
    kept: list[LabelledCell] = []
    logits: list[Floats] = []
    features: list[Floats] = []
    for batch in _batches(cells, view, pause):
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


def _batches(
    cells: Sequence[LabelledCell], view: SiteView, pause: Pause
) -> Iterator[list[tuple[LabelledCell, preprocessing.Pixels]]]:
    for start in range(0, len(cells), _BATCH):
        pause()
        batch = []
        for cell in cells[start : start + _BATCH]:
            try:
                image = preprocessing.load_image(cell.path)
                batch.append((cell, preprocessing.cell_crop(image, cell.box, surround=view.surround)))
            except DataInvalidError:
                continue
        if batch:
            yield batch
