"""A node's side for tests: joined homes, analysed smears, a context with an identity."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from client_node import enrol
from client_node.analysis.store import SmearStore, Trace
from client_node.home import NodeHome
from shared.contracts.analysis import Smear
from shared.contracts.enrolment import NodeMode
from tests.client_node.centre import LiveCentre
from tests.factories import cell_image, make_smear

IDENTITY = {"name": "Quillfeather, Ottilie", "patient_id": "MRN-77001", "birth_date": "1950-02-03", "sex": "female"}


def joined(centre: LiveCentre, home: Path, *, mode: NodeMode = NodeMode.TRAINING) -> NodeHome:
    """Return the home of an approved node."""
    place = NodeHome(home)
    said = enrol.init(place, centre.kit(home.parent), mode=mode)
    centre.approve(said.node_id, said.fingerprint)
    assert enrol.enrolment_status(place).state == "approved"
    return place


def keep_smear(home: NodeHome, smear: Smear | None = None) -> Smear:
    """Store an analysed smear as the analysis does, with a telling path and warning in it."""
    smear = smear or make_smear()
    telling = smear.fields[0].model_copy(update={"path": "/scanner/Quillfeather_Ottilie.jpg"})
    quality = smear.quality.model_copy(update={"warnings": ("Quillfeather_2.jpg: cannot be read",)})
    smear = smear.model_copy(update={"fields": (telling,), "quality": quality})
    store = SmearStore(home.path)
    store.put_field(smear.id, 0, np.full((240, 320, 3), 220, dtype=np.uint8))
    for cell in smear.cells:
        pixels = np.asarray(Image.open(io.BytesIO(cell_image(cell.cls))).convert("RGB")).copy()
        pixels[0, 0] = (int(cell.id[1:]) % 256, 0, 0)
        store.put_cell(smear.id, cell.id, pixels, None)
    store.commit(smear, {cell.id: Trace("0" * 64, None, None) for cell in smear.cells})
    return smear


def context_file(folder: Path) -> Path:
    """Write a context file with an identity."""
    file = folder / "context.json"
    file.write_text(json.dumps({"identity": IDENTITY, "age_band": "70-79", "sex": "female", "question": "Blasts?"}))
    return file
