"""What a catalogue holds: labelled cells and fields, what is marked in them, and the rows that are added."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from client_node.datasets.splits import Split
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""
_SAME_CELL_IOU: Final = 0.4
"""From which overlap on (intersection over union) two boxes hold the same cell."""


class Kind(StrEnum):
    """What a row of the catalogue is."""

    CELL = "cell"
    BOX = "box"
    FIELD = "field"
    OBJECT = "object"
    """Something marked in a field whose class is not known, or that has none: it teaches to find cells, not to name
    them, and stands in a table of its own."""


class Origin(StrEnum):
    """Where a label came from."""

    IMPORT = "import"
    FEEDBACK = "feedback"


def cell_hash(image_sha256: str, box: Box | None) -> str:
    """Return the identity of a cell: SHA-256 (hex) over its image's SHA-256 and its box (`-`: whole image)."""
    where = "-" if box is None else ",".join(str(int(value)) for value in box)
    return hashlib.sha256(f"{image_sha256}:{where}".encode()).hexdigest()


def as_predicted(cls: CellClass, classes: Collection[CellClass]) -> CellClass | None:
    """Return the one of ``classes`` that a cell of ``cls`` belongs to: itself, its parent, or None."""
    if cls in classes:
        return cls
    parent = cls.info.parent
    return parent if parent is not None and parent in classes else None


@dataclass(frozen=True, slots=True)
class LabelledCell:
    """A cell that can train or test a model. ``box`` is None where the image shows just this cell."""

    hash: str
    path: Path
    box: Box | None
    cls: CellClass
    source: str
    group: str
    origin: Origin
    site: str
    split: Split


@dataclass(frozen=True, slots=True)
class MarkedObject:
    """Something that somebody has marked in a field."""

    box: Box
    kind: ObjectKind


@dataclass(frozen=True, slots=True)
class LabelledField:
    """A whole field in the catalogue, and what is marked in it."""

    path: Path
    sha256: str
    width: int
    height: int
    source: str
    site: str
    group: str
    split: Split
    objects: tuple[MarkedObject, ...] = ()
    """Each once, in the order of their boxes."""
    complete: bool = False
    """Whether whoever marked it marked all of its white cells: only then is the rest of it no white cell."""

    @property
    def cells(self) -> tuple[Box, ...]:
        """Where its nucleated cells are."""
        return tuple(one.box for one in self.objects if one.kind is ObjectKind.CELL)


@dataclass(frozen=True, slots=True)
class NewItem:
    """A row to add; its image is stored already (see `Catalogue.writing`)."""

    image_sha256: str
    kind: Kind
    box: Box | None
    cls: CellClass | None
    source: str
    site: str
    group: str
    split: Split
    origin: Origin = Origin.IMPORT
    smear_id: str | None = None
    cell_id: str | None = None

    @property
    def hash(self) -> str:
        """Identity of the cell or field."""
        return cell_hash(self.image_sha256, self.box)


def same_cell(one: Box | None, other: Box | None) -> bool:
    """Return whether two boxes of an image hold the same cell; None is a picture of one cell as a whole."""
    if one is None or other is None:
        return one is other
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return False
    shared_area = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared_area / (areas - shared_area) >= _SAME_CELL_IOU
