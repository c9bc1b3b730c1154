"""Further fields of a smear that was analysed before: where they are, and in which order they are looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.smears import ImageKind, plan_smears
from client_node.analysis.store import Trace
from client_node.analysis.tiling import Tile
from client_node.analysis.tiling import fields as slide_fields
from client_node.datasets.images import file_sha256
from client_node.home import NodeHome
from shared.contracts.analysis import Smear
from shared.contracts.errors import NotFoundError, NothingToDoError
from shared.vision.slides import Slide

Pixels = NDArray[np.uint8]
_DONE = "done"


@dataclass(frozen=True, slots=True)
class Source:
    """An image to look at: a file, or (with ``tile`` and ``pixels``) a part of a slide."""

    path: Path
    kind: ImageKind
    sha256: str = ""
    tile: Tile | None = None
    pixels: Pixels | None = None
    microns: float | None = None


def sources(home: NodeHome, smear: Smear, traces: dict[str, Trace], *, most: int) -> Iterator[Source]:
    """Yield what was not looked at yet, at most ``most`` images.

    A slide goes on where the analysis stopped: its fields come in an order whose every beginning is spread over the
    smear. Of a folder of images those are taken that came into it since.

    Raises:
        NotFoundError: the images are not kept any more. NothingToDoError: there is nothing else to look at.
    """
    slide = next((field for field in smear.fields if field.origin is not None), None)
    found = _of_slide(home, smear, slide.path) if slide is not None else _of_folder(home, smear, traces)
    return islice(found, most)


def _of_slide(home: NodeHome, smear: Smear, name: str) -> Iterator[Source]:
    path = _where(home, Path(name))
    digest = file_sha256(path)
    seen = frozenset(field.origin for field in smear.fields if field.origin is not None)
    with Slide(path) as slide:
        for tile, pixels in slide_fields(slide, behind=seen):
            yield Source(path, ImageKind.SLIDE, digest, tile, pixels, slide.microns)


def _of_folder(home: NodeHome, smear: Smear, traces: dict[str, Trace]) -> Iterator[Source]:
    known = [Path(field.path) for field in smear.fields]
    known += [Path(cell.source) for cell in smear.cells if cell.source is not None]
    if not known:
        raise NothingToDoError("It is not known here which images this smear came from.")
    names, digests = {path.name for path in known}, {trace.image_sha256 for trace in traces.values()}
    folder = _where(home, known[0]).parent
    plans = plan_smears([folder])
    own = next((plan for plan in plans if any(image.path.name in names for image in plan.images)), plans[0])
    for image in own.images:
        if image.path.name not in names and file_sha256(image.path) not in digests:
            yield Source(image.path, image.kind)


def _where(home: NodeHome, path: Path) -> Path:
    """Return where an image lies now: what was put into ``incoming`` has moved since."""
    if path.exists():
        return path
    try:
        moved = home.incoming / _DONE / path.relative_to(home.incoming)
    except ValueError:
        moved = path
    if not moved.exists():
        raise NotFoundError("The images of this smear are not kept at the hospital any more.")
    return moved
