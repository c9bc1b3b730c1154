"""The view of a site without labels: its dye brought near to a laboratory that the model knows, by cells seen here.

Off unless the hospital asks for it (``[analysis] view_without_labels``), for two reasons. Nearer is not righter: no
label says that the classes come out better. And what is made to look known is no longer strange: the very sign that
warns of an unlearnt stain is used up. So a view is only taken where the cells were strange and are clearly less so by
it, the widths of crops stay, and the evidence of `out_of_distribution` says that the dye was changed without labels.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict

from client_node.analysis.kept import kept_cell
from client_node.analysis.model import LoadedModel
from client_node.analysis.store import SmearStore
from client_node.models.view import LEAST_CELLS, MOST_CELLS, outputs
from shared.contracts.errors import HematovisionError
from shared.vision import colour, dye
from shared.vision.colour import SiteView
from shared.vision.known import Known
from shared.vision.preprocessing import Pixels

CLEARLY: Final = 0.8
"""Share of the plain view's distance that another's must stay below."""
_A_SMEAR: Final = 20
_BATCH: Final = 8

log = structlog.get_logger(__name__)


class Nearer(BaseModel):
    """What was found about a site's dye without labels."""

    model_config = ConfigDict(frozen=True)

    view: SiteView
    """The view to use; the plain one where no other is clearly nearer."""
    cells: int
    distance: float | None
    """Median over the cells of how strange they are in the plain view (1: at the threshold); None for too few cells."""
    nearest: float | None
    """The least that a change of the dye makes of it."""

    def text(self) -> str:
        """Return what a person reads."""
        if self.distance is None or self.nearest is None:
            return f"{self.cells} cells of smears: {LEAST_CELLS}, and a model that carries laboratories, are needed."
        said = f"{self.cells} cells: {self.distance:.2f} from what is known as they are, {self.nearest:.2f} at best"
        if self.view.plain:
            return f"{said}: they are shown as they are."
        return f"{said}: shown by {self.view.method} from now on. No label says that the classes come out better."


def view_without_labels(home: Path, model: LoadedModel, *, pause: Callable[[], object]) -> Nearer:
    """Return the view in which the cells of recent smears lie nearest to a laboratory that taught ``model``."""
    crops = list(islice(kept_crops(home, model), MOST_CELLS))
    if model.known is None or len(crops) < LEAST_CELLS:
        return Nearer(view=SiteView(), cells=len(crops), distance=None, nearest=None)
    plain = _distance(model, model.known, crops, SiteView(), pause)
    found = {
        view: _distance(model, model.known, crops, view, pause)
        for view in colour.views_towards(dye.stained_pixels(crops), model.card.calibration)
    }
    best = min(found, key=lambda view: found[view], default=SiteView())
    nearest = found.get(best, plain)
    good = plain > 1.0 and nearest < CLEARLY * plain
    log.info("view.without_labels", cells=len(crops), distance=plain, nearest=nearest, method=best.method, used=good)
    return Nearer(view=best if good else SiteView(), cells=len(crops), distance=plain, nearest=nearest)


def kept_crops(home: Path, model: LoadedModel) -> Iterator[Pixels]:
    """Yield white cells of the newest smears that the node keeps, some of each, cut as usual."""
    root = SmearStore(home).root
    folders = sorted(root.glob("S-*"), key=lambda one: one.stat().st_mtime_ns, reverse=True) if root.is_dir() else []
    return chain.from_iterable(islice(_crops(home, folder.name, model), _A_SMEAR) for folder in folders)


def _crops(home: Path, smear_id: str, model: LoadedModel) -> Iterator[Pixels]:
    try:
        cells = [cell.id for cell in SmearStore(home).load(smear_id).cells if cell.cls.info.counts and not cell.edge]
        for cell in cells:
            yield kept_cell(home, smear_id, cell).crop(model)
    except HematovisionError as error:
        log.warning("view.smear_left_out", smear_id=smear_id, code=error.code)


def _distance(
    model: LoadedModel, known: Known, crops: list[Pixels], view: SiteView, pause: Callable[[], object]
) -> float:
    scores = []
    for start in range(0, len(crops), _BATCH):
        pause()
        scores.append(known.scores(outputs(model, crops[start : start + _BATCH], view)[1]))
    return float(np.median(np.concatenate(scores)))
