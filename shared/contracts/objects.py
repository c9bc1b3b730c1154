"""What a dark spot of a field can be, before anybody asks which white cell it is."""

from enum import StrEnum
from typing import Final

from shared.contracts.ontology import CellClass


class ObjectKind(StrEnum):
    """Kinds in the order of the finder's outputs."""

    CELL = "cell"
    """A nucleated cell: accepted and classified."""
    BACKGROUND = "background"
    RED_CELL = "red_cell"
    PLATELET = "platelet"
    SMUDGE = "smudge"
    ARTEFACT = "artefact"


_NO_CELLS: Final = {
    CellClass.PLATELET: ObjectKind.PLATELET,
    CellClass.SMUDGE_CELL: ObjectKind.SMUDGE,
    CellClass.ARTEFACT: ObjectKind.ARTEFACT,
}
_NAMES: Final = {
    "wbc": ObjectKind.CELL, "white_blood_cell": ObjectKind.CELL, "leukocyte": ObjectKind.CELL,
    "rbc": ObjectKind.RED_CELL, "red_blood_cell": ObjectKind.RED_CELL, "erythrocyte": ObjectKind.RED_CELL,
    "platelet": ObjectKind.PLATELET, "thrombocyte": ObjectKind.PLATELET,
    "smudge": ObjectKind.SMUDGE, "smudge_cell": ObjectKind.SMUDGE,
    "artefact": ObjectKind.ARTEFACT, "artifact": ObjectKind.ARTEFACT,
}  # fmt: skip


def kind_of(cls: CellClass) -> ObjectKind:
    """Return what kind of object a cell of ``cls`` is."""
    return _NO_CELLS.get(cls, ObjectKind.CELL)


def parse_kind(label: str) -> ObjectKind | None:
    """Return the kind that a label of a file names, or None. Case, plural ``s``, spaces and hyphens do not matter."""
    key = label.strip().lower().replace(" ", "_").replace("-", "_")
    return _NAMES.get(key) or _NAMES.get(key.removesuffix("s"))
