"""Pictures of the measured model at work, for the page: a field, a gallery, and overlays beside randomised ones."""

import shutil
from pathlib import Path
from typing import Final

from PIL import Image

from client_node.analysis.smears import SmearKind
from client_node.datasets.catalogue import Catalogue
from tests.bench.model.bench import Bench
from tests.bench.model.pictures import Shown, pictures
from tests.bench.model.section import Measured, Section

_GALLERY: Final = 24
_QUALITY: Final = 82
_MOST_BYTES: Final = 300_000


def measure(bench: Bench) -> Measured:
    """Draw them below the bench's own folder."""
    cells = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_GALLERY]
    field = max(Catalogue(bench.home).fields(split="test"), key=lambda one: (len(one.cells), str(one.path)))
    pictures(
        bench.work / "pictures",
        {
            "field-bccd": Shown([field.path], ["field"], SmearKind.FIELDS, bench.at("both", "bccd")),
            "gallery-pbc": Shown(
                [cell.path for cell in cells], [str(cell.cls) for cell in cells], SmearKind.GALLERY,
                bench.at("both", "pbc"),
            ),
        },
    )  # fmt: skip
    return Measured()


def published(folder: Path, images: Path) -> list[str]:
    """Copy what is drawn in ``folder`` to ``images``, small enough to be kept with the text; return the names."""
    done = []
    for name in ("field-bccd", "gallery-pbc", "overlays"):
        file = folder / f"{name}.png"
        if not file.is_file():
            continue
        done.append(f"model-{name}")
        target = images / f"{done[-1]}.jpg"
        quality = _QUALITY
        with Image.open(file) as picture:
            while True:
                picture.convert("RGB").save(target, "JPEG", quality=quality, optimize=True)
                if target.stat().st_size <= _MOST_BYTES or quality < 40:
                    break
                quality -= 10
    return done


def kept_model(bench: Bench) -> Path:
    """Leave the measured model, calibrated at a hospital with the cells of both sources, where it is looked for."""
    target = bench.work / "model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bench.at("both", "pbc", "bccd"), target)
    return target


SECTION: Final = Section(
    name="pictures",
    title="What it says of real images",
    measure=measure,
    version=2,
    seconds=(15, 15),
    models=("both",),
    method="Test images that nothing was trained on. A box or caption in red: the model leaves the cell open.",
)
