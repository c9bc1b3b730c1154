"""A small hospital: a home with a policy and a catalogue of painted cells in three classes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Kind, NewItem, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL)
RECIPE = Recipe(classes=CLASSES, input_size=64, views=2, local_epochs=2, batch_size=16)
_DYES = ((120, 90, 190), (50, 40, 130), (210, 90, 80))


def painted(cls: CellClass, random: np.random.Generator) -> bytes:
    """Return a PNG of one cell; its class shows in colour and size."""
    position = CLASSES.index(cls)
    image = Image.new("RGB", (80, 80), (235, 225, 225))
    radius = (24, 15, 22)[position] + int(random.integers(-2, 3))
    x, y = 40 + random.integers(-3, 4, 2)
    dye = tuple(int(value + random.integers(-12, 13)) for value in _DYES[position])
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=dye)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1.0)).save(buffer, "PNG")
    return buffer.getvalue()


def make_home(home: Path, *, train: int = 8, val: int = 4, test: int = 4, policy: str = "", seed: int = 0) -> Path:
    """Fill ``home`` with so many cells of each class and split; the first training cell is feedback."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "policy.toml").write_text(policy or "[training]\n")
    random = np.random.default_rng(seed)
    with Catalogue(home).writing() as writer:
        items: list[NewItem] = []
        for split, count in ((Split.TRAIN, train), (Split.VAL, val), (Split.TEST, test)):
            for number in range(count):
                for cls in CLASSES:
                    stored = writer.put_image(painted(cls, random))
                    origin = Origin.IMPORT if items else Origin.FEEDBACK
                    items.append(
                        NewItem(
                            image_sha256=stored.sha256,
                            kind=Kind.CELL,
                            box=None,
                            cls=cls,
                            source="painted",
                            site="s",
                            group=f"{split}-{number}-{cls}",
                            split=split,
                            origin=origin,
                        )
                    )
        writer.add(items)
    return home
