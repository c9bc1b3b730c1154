"""What the model saw in the most doubtful cells of a flagged smear: drawn here, for the reader who asks for it there.

Only by the exported file's own map: it needs no torch, and costs a few passes of the network a cell.
"""

from pathlib import Path
from typing import Final

import structlog

from client_node.analysis import activation
from client_node.analysis.explain import SIDE, drawn
from client_node.analysis.kept import kept_cell, model_of
from client_node.analysis.model import LoadedModel
from client_node.analysis.store import Pixels, SmearStore
from client_node.policy import load_analysis_policy
from shared.contracts.analysis import Cell, Smear
from shared.contracts.errors import DataInvalidError, ModelInvalidError, NotFoundError
from shared.vision.precision import whole_file
from shared.vision.preprocessing import scale

log = structlog.get_logger(__name__)
_SAMPLES: Final = 8
"""Along a side: coarser than `explain` on demand, for a tenth of its passes."""
_EMPTY_SET: Final = 99


class Overlays:
    """Draws overlays with the model of one node, whose maps are opened once."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._maps: tuple[Path, activation.Maps] | None = None

    def keep(self, smear: Smear, model: LoadedModel) -> int:
        """Draw and keep the overlays of a smear that is kept already and will be sent; return how many.

        A model of another form has none, and a smear without any is as good a case: nothing is raised for that.
        """
        most = load_analysis_policy(self._home).overlays
        doubtful = sorted((cell for cell in smear.cells if cell.doubtful), key=_doubt)[:most]
        if not doubtful or all(flag.kind != "morphology" for flag in smear.flags):
            return 0
        try:
            maps = self._opened(model)
            tried = {cell.id: self._draw(smear, cell, model, maps) for cell in doubtful}
        except (ModelInvalidError, NotFoundError, DataInvalidError) as error:
            log.info("smear.no_overlays", smear_id=smear.id, code=error.code)
            return 0
        pictures = {cell_id: picture for cell_id, picture in tried.items() if picture is not None}
        SmearStore(self._home).put_overlays(smear.id, pictures)
        return len(pictures)

    def _opened(self, model: LoadedModel) -> activation.Maps:
        folder = model_of(self._home, model.card.version)
        if self._maps is None or self._maps[0] != folder:
            self._maps = folder, activation.cam_maps(whole_file(folder))
        return self._maps[1]

    def _draw(self, smear: Smear, cell: Cell, model: LoadedModel, maps: activation.Maps) -> Pixels | None:
        """Return the cell under what speaks for its class; None where nothing does, or the class is not the model's."""
        if cell.cls not in model.classes:
            return None
        crop = kept_cell(self._home, smear.id, cell.id).crop(model)
        (image,) = model.inputs([crop])
        found = activation.heat(maps, image, model.classes.index(cell.cls), SIDE, fine=_SAMPLES)
        return drawn(scale(crop, SIDE), found) if found.any() else None


def _doubt(cell: Cell) -> tuple[int, float]:
    return -(len(cell.prediction_set) or _EMPTY_SET), cell.probability if cell.margin is None else cell.margin
