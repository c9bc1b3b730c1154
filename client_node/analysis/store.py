"""Keeps analysed smears: the analysis, its cells' pictures and where each cell came from, for cases and feedback.

``H/smears/<smear id>/``: ``fields/<index>.jpg`` and ``cells/<cell id>.png`` (re-encoded: no metadata of the scanner),
``cells.json`` (per cell: SHA-256 of the original image, box in it, box in the stored picture) and, last,
``analysis.json``. After it may come ``heat/<cell id>.png``: what the model saw in doubtful cells of a flagged smear.
Other files there (``context.json``) belong to others and stay.
"""

import io
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from client_node.analysis.png import encode_png
from client_node.datasets.images import write_atomic
from shared.contracts.analysis import Smear
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.space import space_guard

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
_CONTEXT: Final = 1.9
"""Side of a stored cell picture in sides of the cell's box: more than the model sees, for the reader."""
_FIELD_QUALITY: Final = 90


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a cell came from."""

    image_sha256: str
    box: Box | None
    """In the original image; None where that shows just this cell."""
    crop_box: Box | None
    """In the stored picture."""


class SmearStore:
    """The smears below a node's home folder."""

    def __init__(self, home: Path) -> None:
        self.root = Path(home) / "smears"

    def folder(self, smear_id: str) -> Path:
        """The folder of one smear."""
        if not smear_id or Path(smear_id).name != smear_id or smear_id.startswith("."):
            raise NotFoundError("There is no such smear.")
        return self.root / smear_id

    def put_field(self, smear_id: str, index: int, image: Pixels) -> None:
        """Store a field, re-encoded."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=_FIELD_QUALITY)
        self._write(self.folder(smear_id) / "fields" / f"{index}.jpg", buffer.getvalue())

    def put_cell(self, smear_id: str, cell_id: str, image: Pixels, box: Box | None) -> Box | None:
        """Store a cell's picture and return the cell's box in it (None: the picture shows just this cell)."""
        picture, crop_box = (image, None) if box is None else cut_context(image, box)
        self._write(self.folder(smear_id) / "cells" / f"{cell_id}.png", encode_png(picture))
        return crop_box

    def put_overlays(self, smear_id: str, pictures: dict[str, Pixels]) -> None:
        """Store what the model saw in some cells, in place of what was stored before."""
        folder = self.folder(smear_id) / "heat"
        shutil.rmtree(folder, ignore_errors=True)
        for cell_id, picture in pictures.items():
            self._write(folder / f"{cell_id}.png", encode_png(picture))

    def discard(self, smear_id: str) -> None:
        """Remove the pictures of a smear whose analysis was never committed; leaves a committed one alone."""
        folder = self.folder(smear_id)
        if not (folder / "analysis.json").exists():
            for part in ("fields", "cells"):
                shutil.rmtree(folder / part, ignore_errors=True)
            (folder / "cells.json").unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    def commit(self, smear: Smear, traces: dict[str, Trace]) -> None:
        """Store the analysis; only now is the smear there."""
        folder = self.folder(smear.id)
        rows: dict[str, dict[str, Any]] = {  # Any: JSON values
            key: {"image_sha256": trace.image_sha256, "box": trace.box, "crop_box": trace.crop_box}
            for key, trace in traces.items()
        }
        self._write(folder / "cells.json", json.dumps(rows).encode())
        self._write(folder / "analysis.json", smear.model_dump_json(by_alias=True).encode())

    def traces(self, smear_id: str) -> dict[str, Trace]:
        """Return where each cell of a kept smear came from.

        Raises:
            DataInvalidError: the file is damaged.
        """
        try:
            rows = json.loads((self.folder(smear_id) / "cells.json").read_text())
            return {
                key: Trace(row["image_sha256"], _box(row["box"]), _box(row["crop_box"])) for key, row in rows.items()
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataInvalidError("The stored analysis is damaged: analyse the smear again.") from error

    def load(self, smear_id: str) -> Smear:
        """Return a stored analysis.

        Raises:
            NotFoundError: there is none of this id.
            DataInvalidError: its file is damaged.
        """
        try:
            return Smear.model_validate_json((self.folder(smear_id) / "analysis.json").read_text())
        except FileNotFoundError:
            raise NotFoundError("There is no such smear.") from None
        except (OSError, ValidationError) as error:
            raise DataInvalidError("The stored analysis is damaged: analyse the smear again.") from error

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        with space_guard(path.parent):
            write_atomic(path, data)


def _box(values: list[int] | None) -> Box | None:
    return None if values is None else (values[0], values[1], values[2], values[3])


def cut_context(image: Pixels, box: Box) -> tuple[Pixels, Box]:
    """Cut a square around ``box``, moved into the image at its border; return it and the box in it."""
    height, width = image.shape[:2]
    side = round(max(box[2] - box[0], box[3] - box[1]) * _CONTEXT)
    left = max(0, min((box[0] + box[2] - side) // 2, width - side))
    top = max(0, min((box[1] + box[3] - side) // 2, height - side))
    picture = np.ascontiguousarray(image[top : min(height, top + side), left : min(width, left + side)])
    return picture, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
