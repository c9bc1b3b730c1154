"""The cells of one field: proposals by colour, judged and boxed anew by the model where its finder was trained."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection import Box, overlap, propose
from client_node.analysis.detection.accept import accept
from client_node.analysis.model import LoadedModel, Reading
from shared.contracts.objects import ObjectKind
from shared.vision.preprocessing import cell_crop, white_point

Pixels = NDArray[np.uint8]
_AS_SEEN: Final = 0.7
"""Intersection over union from which the network has seen the cell well enough: else it looks again."""


@dataclass(frozen=True, slots=True)
class FoundCell:
    """A cell of a field."""

    box: Box
    edge: bool
    """Whether the field's edge cuts it."""
    crop: Pixels
    reading: Reading | None
    """None: not read yet."""


@dataclass(frozen=True, slots=True)
class FoundCells:
    """A field's cells, top to bottom, and how many proposals were something else."""

    cells: tuple[FoundCell, ...]
    rejected: dict[ObjectKind, int]


def find_cells(model: LoadedModel, pixels: Pixels) -> FoundCells:
    """Return the white cells of a field (height × width × RGB uint8).

    With a finder (`LoadedModel.finds`) the network looks at each of the generous proposals once, and what it said of an
    accepted one is its reading, unless the box moved notably. Without, every strict proposal is a cell, still to be
    read.
    """
    white = white_point(pixels)
    if not model.finds:
        strict = propose(pixels, generous=False)
        cells = tuple(FoundCell(one.box, one.edge, model.cut(pixels, one.box, white), None) for one in strict)
        return FoundCells(cells, {})
    boxes = [one.box for one in propose(pixels, generous=True)]
    crops = [cell_crop(pixels, box, white) for box in boxes]
    readings, objects = model.look(crops)
    height, width = pixels.shape[:2]
    judged = accept(boxes, objects, width, height)
    found = []
    for one in judged.cells:
        # The finder knows one width of crops only; a site whose cells are shown wider needs a second look.
        seen = overlap(one.box, boxes[one.proposal]) >= _AS_SEEN and model.adapter.view.surround == 1.0
        crop = crops[one.proposal] if seen else model.cut(pixels, one.box, white)
        found.append(FoundCell(one.box, one.edge, crop, readings[one.proposal] if seen else None))
    return FoundCells(tuple(found), judged.rejected)
