"""Joins the labels that came home with a report to their cells' images, inside the hospital only."""

from pathlib import Path

import structlog

from client_node.cases.bundle import load_smear
from client_node.cases.outbox import Outbox
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Box
from client_node.home import NodeHome
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.contracts.report import FeedbackLabel

log = structlog.get_logger(__name__)


def join_labels(home: NodeHome | Path, labels: tuple[FeedbackLabel, ...]) -> int:
    """Put each corrected label into the catalogue with its cell's image; return how many found theirs.

    Safe to repeat: the same label of the same cell is one row.
    """
    place = NodeHome(home)
    if not labels:
        return 0
    catalogue, outbox, joined = Catalogue(place.path), Outbox(place), 0
    for label in labels:
        try:
            smear_id = outbox.get(label.case_id).smear_id
            if label.field is not None and label.box is not None:
                _join_marked(place, catalogue, smear_id, label, label.field, label.box)
            else:
                catalogue.add_feedback(_image(place, smear_id, label.cell_id), label.label, smear_id, label.cell_id)
            joined += 1
        except (NotFoundError, DataInvalidError) as error:
            log.warning("feedback.no_image", case_id=label.case_id, cell_id=label.cell_id, code=error.code)
    log.info("feedback.joined", labels=len(labels), joined=joined)
    return joined


def _join_marked(
    home: NodeHome, catalogue: Catalogue, smear_id: str, label: FeedbackLabel, index: int, box: Box
) -> None:
    """Join a cell that the reader marked: its place in the field teaches to find cells, its class to name them."""
    smear = load_smear(home, smear_id)
    field = home.smear(smear_id) / "fields" / f"{index}.jpg"
    if index >= len(smear.fields) or not field.is_file():
        raise NotFoundError("The field's image is not kept here any more.")
    # A field cut from a slide has no image of its own among the originals.
    near = None
    if smear.fields[index].origin is None:
        near = next((cell.id for cell in smear.cells if cell.field == index), None)
    catalogue.add_marked(field, box, label.label, smear_id, label.cell_id, neighbour=near, instead_of=label.instead_of)


def _image(home: NodeHome, smear_id: str, cell_id: str) -> Path:
    image = home.smear(smear_id) / "cells" / f"{Path(cell_id).name}.png"
    if not image.is_file():
        raise NotFoundError("The cell's image is not kept here any more.")
    return image
