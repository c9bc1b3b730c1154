"""What a dark spot of a field can be, before anybody asks which white cell it is."""

from enum import StrEnum


class ObjectKind(StrEnum):
    """Kinds in the order of the finder's outputs."""

    CELL = "cell"
    """A nucleated cell: accepted and classified."""
    BACKGROUND = "background"
    RED_CELL = "red_cell"
    PLATELET = "platelet"
    SMUDGE = "smudge"
    ARTEFACT = "artefact"
