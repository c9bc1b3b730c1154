"""Labelled cells without images."""

from pathlib import Path

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CellClass

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL)


def cells(train: int = 60, val: int = 9, test: int = 12, *, in_group: int = 1) -> list[LabelledCell]:
    """Return so many cells of each class and split, ``in_group`` to a group."""
    found: list[LabelledCell] = []
    for split, count in ((Split.TRAIN, train), (Split.VAL, val), (Split.TEST, test)):
        for cls in CLASSES:
            for number in range(count):
                group = f"{split}-{cls}-{number // in_group}"
                name = f"{len(found):064d}"
                found.append(LabelledCell(name, Path("x"), None, cls, "s", group, Origin.IMPORT, "s", split))
    return found
