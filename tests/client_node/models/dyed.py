"""Painted cells of laboratories that use two dyes, and a model that learnt from one of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CellClass
from shared.vision import colour, dye
from shared.vision.dye import Reinhard, recoloured
from shared.vision.images import load_image
from shared.vision.preprocessing import Pixels, cell_crop
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import CLASSES, make_model

IN_LAB = Reinhard(scale=(0.6, 1.0, 1.0), own=(65.0, 22.0, -12.0), wanted=(70.0, 20.0, -8.0))
"""Makes another laboratory's dye of a known one."""
AMOUNTS = ((1.2, 0.9), (1.2, 0.3), (0.5, 0.9), (0.5, 0.3))
"""Of a nucleus' and a cytoplasm's dye, by class."""
DYES = ((0.72, 0.62, 0.31), (0.22, 0.86, 0.46))


def dyed(
    dyes: tuple[tuple[float, ...], ...] = DYES, change: Reinhard | None = None, size: float = 1.0
) -> Callable[[CellClass, int], Pixels]:
    """Cells on glass whose classes differ in how much of two dyes they take, in one laboratory's dyes and size."""
    whole, inner = (slice(round(48 - size * half), round(48 + size * half)) for half in (30, 16))
    unit = np.stack([np.asarray(one) / np.linalg.norm(one) for one in dyes])

    def drawn(cls: CellClass, number: int) -> Pixels:
        random = np.random.default_rng(number)
        amounts, (nucleus, cytoplasm) = np.zeros((96, 96, 2)), AMOUNTS[CLASSES.index(cls)]
        amounts[whole, whole] = (0.05, cytoplasm)
        amounts[inner, inner] = (nucleus, 0.1)
        amounts *= random.normal(1.0, 0.04, 2) * random.uniform(0.8, 1.2, (96, 96, 1))
        crop = np.asarray(np.clip(np.exp(-amounts @ unit) * 236.0 - 1.0, 0, 255), np.uint8)
        return crop if change is None else recoloured(crop, change)

    return drawn


def labelled(folder: Path, count: int, drawn: Callable[[CellClass, int], Pixels]) -> list[LabelledCell]:
    """Cells of all classes in turn, as ``drawn`` draws them."""
    found = []
    for number in range(count):
        cls = CLASSES[number % len(CLASSES)]
        path = save(folder / f"{number}.png", drawn(cls, number))
        found.append(LabelledCell(f"{number:064d}", path, None, cls, "s", f"g{number}", Origin.IMPORT, "s", Split.VAL))
    return found


def two_dye_model(folder: Path, version: str = "test-1") -> Path:
    """Write a model that learnt from a laboratory of two dyes, and tells classes by their mean colour."""
    known = labelled(folder / "known", 40, dyed())
    crops = [cell_crop(load_image(cell.path), None) for cell in known]
    colours = {
        cls: np.mean([crop.mean(axis=(0, 1)) for cell, crop in zip(known, crops, strict=True) if cell.cls is cls], 0)
        for cls in CLASSES
    }
    make_model(folder, version, colours=colours, sharpness=400.0)
    pixels = dye.stained_pixels(crops)
    card = json.loads((folder / "card.json").read_text())
    seen = dye.dye_of(pixels)
    assert seen is not None
    card["calibration"] |= {"density": colour.density_of(pixels), "dye": seen.model_dump(mode="json")}
    (folder / "card.json").write_text(json.dumps(card))
    return folder
