"""Gets a cell of an analysed smear back, as the model saw it, from what the node has kept."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, current_model_dir
from client_node.analysis.store import Box, Pixels, SmearStore
from client_node.datasets.images import read_limited
from client_node.datasets.labelled import cell_hash
from shared.contracts.analysis import Cell, Smear
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.vision.images import load_image
from shared.vision.preprocessing import BOX_MARGIN, white_point


@dataclass(frozen=True, slots=True)
class KeptCell:
    """A cell of a stored smear."""

    smear: Smear
    cell: Cell
    picture: Pixels
    """The cell and its surrounds."""
    box: Box | None
    """Of the cell in the picture; None where that shows just this cell."""
    white: NDArray[np.float64] | None
    """The light of the cell's field, measured on all of it, as the analysis did."""
    hashes: frozenset[str]
    """Under which the catalogue may hold this very cell."""

    def crop(self, model: LoadedModel) -> Pixels:
        """Return the cell as ``model`` reads it."""
        return model.cut(self.picture, self.box, self.white)

    def box_share(self, model: LoadedModel) -> tuple[float, float, float, float] | None:
        """Return the box (x0, y0, x1, y1) in shares of that crop, which is a square around it."""
        if self.box is None:
            return None
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        side = max(width, height) * BOX_MARGIN * model.adapter.view.surround
        across, down = width / side / 2, height / side / 2
        return 0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down


def kept_cell(home: Path, smear_id: str, cell_id: str) -> KeptCell:
    """Return a cell of a smear that this node has analysed.

    Raises:
        NotFoundError: there is no such smear or cell, or its picture is not kept any more.
        DataInvalidError: what is kept is damaged.
    """
    store = SmearStore(home)
    smear = store.load(smear_id)
    cell = next((cell for cell in smear.cells if cell.id == cell_id), None)
    if cell is None:
        raise NotFoundError(f"Smear {smear_id} has no cell {cell_id}: `analyze --json` lists the cells.")
    folder = store.folder(smear_id)
    file = folder / "cells" / f"{cell.id}.png"
    if not file.is_file():
        raise NotFoundError("The cell's picture is not kept here any more: analyse the smear again.")
    data = read_limited(file)
    trace, picture = _trace(folder, cell.id), load_image(data)
    box = _box(trace.get("crop_box"))
    digest = hashlib.sha256(data).hexdigest()
    hashes = {cell_hash(str(trace.get("image_sha256")), _box(trace.get("box"))), cell_hash(digest, box)}
    field = folder / "fields" / f"{cell.field}.jpg"
    white = _white(field, field.stat().st_mtime_ns) if box is not None and field.is_file() else None
    return KeptCell(smear, cell, picture, box, white, frozenset(hashes))


@lru_cache(maxsize=4)
def _white(field: Path, _changed: int) -> NDArray[np.float64]:
    """Return the light of a field; many of its cells ask for it one after another."""
    return white_point(load_image(read_limited(field)))


def model_of(home: Path, version: str) -> Path:
    """Return the folder of the model ``version`` if it still lies here, else of the one that analyses now.

    Raises:
        ModelInvalidError: no model is installed.
    """
    folder = Path(home) / "models" / version
    return folder if Path(version).name == version and (folder / "card.json").is_file() else current_model_dir(home)


def _trace(folder: Path, cell_id: str) -> dict[str, Any]:  # Any: JSON
    try:
        trace = json.loads((folder / "cells.json").read_text())[cell_id]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataInvalidError("The stored analysis is damaged: analyse the smear again.") from error
    return trace if isinstance(trace, dict) else {}


def _box(value: object) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x0, y0, x1, y1 = (int(number) for number in value)
    return x0, y0, x1, y1
