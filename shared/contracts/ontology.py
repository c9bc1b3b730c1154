"""The cell ontology: every class a model may predict or a reader may set, in reporting order.

Codes are LOINC, as listed in the clinical reference. A class value is what stands in files and on the wire.
"""

from dataclasses import dataclass
from enum import StrEnum


class CellClass(StrEnum):
    """One kind of cell or object on a smear; iteration order is the ICSH reporting order."""

    NEUTROPHIL = "neutrophil"
    SEGMENTED_NEUTROPHIL = "segmented_neutrophil"
    BAND_NEUTROPHIL = "band_neutrophil"
    METAMYELOCYTE = "metamyelocyte"
    MYELOCYTE = "myelocyte"
    PROMYELOCYTE = "promyelocyte"
    IMMATURE_GRANULOCYTE = "immature_granulocyte"
    BLAST = "blast"
    LYMPHOCYTE = "lymphocyte"
    VARIANT_LYMPHOCYTE = "variant_lymphocyte"
    ABNORMAL_LYMPHOCYTE = "abnormal_lymphocyte"
    LARGE_GRANULAR_LYMPHOCYTE = "large_granular_lymphocyte"
    PROLYMPHOCYTE = "prolymphocyte"
    PLASMA_CELL = "plasma_cell"
    MONOCYTE = "monocyte"
    PROMONOCYTE = "promonocyte"
    EOSINOPHIL = "eosinophil"
    BASOPHIL = "basophil"
    ERYTHROBLAST = "erythroblast"
    SMUDGE_CELL = "smudge_cell"
    PLATELET = "platelet"
    ARTEFACT = "artefact"
    UNIDENTIFIED = "unidentified"

    @property
    def info(self) -> "ClassInfo":
        """Display name, mark, LOINC code, parent and counting rule of this class."""
        return CLASS_INFO[self]

    @property
    def order(self) -> int:
        """Position in the reporting order, from 0."""
        return _ORDER[self]


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """What the product says about a class."""

    name: str
    mark: str
    """Two letters, on every chip and box."""
    loinc: str | None
    counts: bool = True
    """Whether it stands in the white-cell denominator."""
    parent: CellClass | None = None


_C = CellClass
CLASS_INFO: dict[CellClass, ClassInfo] = {
    _C.NEUTROPHIL: ClassInfo("neutrophil", "NE", "26511-6"),
    _C.SEGMENTED_NEUTROPHIL: ClassInfo("segmented neutrophil", "SN", "26505-8", parent=_C.NEUTROPHIL),
    _C.BAND_NEUTROPHIL: ClassInfo("band neutrophil", "BN", "26508-2", parent=_C.NEUTROPHIL),
    _C.METAMYELOCYTE: ClassInfo("metamyelocyte", "MM", "28541-1", parent=_C.IMMATURE_GRANULOCYTE),
    _C.MYELOCYTE: ClassInfo("myelocyte", "MY", "26498-6", parent=_C.IMMATURE_GRANULOCYTE),
    _C.PROMYELOCYTE: ClassInfo("promyelocyte", "PM", "26524-9", parent=_C.IMMATURE_GRANULOCYTE),
    _C.IMMATURE_GRANULOCYTE: ClassInfo("immature granulocyte", "IG", None),
    _C.BLAST: ClassInfo("blast", "BL", "26446-5"),
    _C.LYMPHOCYTE: ClassInfo("lymphocyte", "LY", "26478-8"),
    _C.VARIANT_LYMPHOCYTE: ClassInfo("variant lymphocyte", "VL", "13046-8", parent=_C.LYMPHOCYTE),
    _C.ABNORMAL_LYMPHOCYTE: ClassInfo("abnormal lymphocyte", "AL", "30413-9", parent=_C.LYMPHOCYTE),
    _C.LARGE_GRANULAR_LYMPHOCYTE: ClassInfo("large granular lymphocyte", "LG", "30420-4", parent=_C.LYMPHOCYTE),
    _C.PROLYMPHOCYTE: ClassInfo("prolymphocyte", "PY", "30465-9", parent=_C.LYMPHOCYTE),
    _C.PLASMA_CELL: ClassInfo("plasma cell", "PC", "13047-6"),
    _C.MONOCYTE: ClassInfo("monocyte", "MO", "26485-3"),
    _C.PROMONOCYTE: ClassInfo("promonocyte", "PO", "30466-7"),
    _C.EOSINOPHIL: ClassInfo("eosinophil", "EO", "26450-7"),
    _C.BASOPHIL: ClassInfo("basophil", "BA", "30180-4"),
    _C.ERYTHROBLAST: ClassInfo("nucleated red cell", "NR", "19048-8", counts=False),
    _C.SMUDGE_CELL: ClassInfo("smudge cell", "SM", "34992-8", counts=False),
    _C.PLATELET: ClassInfo("platelet, giant or clumped", "PL", "5908-9", counts=False),
    _C.ARTEFACT: ClassInfo("artefact", "AR", None, counts=False),
    _C.UNIDENTIFIED: ClassInfo("unidentified", "??", "26471-3"),
}
_BY_VALUE = {cls.value: cls for cls in CellClass}
_ORDER = {cls: position for position, cls in enumerate(CellClass)}

CORE_FIVE = (_C.NEUTROPHIL, _C.LYMPHOCYTE, _C.MONOCYTE, _C.EOSINOPHIL, _C.BASOPHIL)

ALIASES: dict[str, CellClass] = {
    "ig": _C.IMMATURE_GRANULOCYTE,
    "nrbc": _C.ERYTHROBLAST,
    "nucleated_red_cell": _C.ERYTHROBLAST,
    "normoblast": _C.ERYTHROBLAST,
    "band": _C.BAND_NEUTROPHIL,
    "segmented": _C.SEGMENTED_NEUTROPHIL,
    "reactive_lymphocyte": _C.VARIANT_LYMPHOCYTE,
    "atypical_lymphocyte": _C.VARIANT_LYMPHOCYTE,
    "lgl": _C.LARGE_GRANULAR_LYMPHOCYTE,
    "thrombocyte": _C.PLATELET,
    "smudge": _C.SMUDGE_CELL,
    "artifact": _C.ARTEFACT,
}


def label_key(label: str) -> str:
    """Return a label as labels are compared: case, spaces and hyphens do not matter."""
    return label.strip().lower().replace(" ", "_").replace("-", "_")


def parse_class(label: str) -> CellClass | None:
    """Return the class that a label of a file names, or None where the ontology has no such class.

    Case, plural ``s``, spaces and hyphens do not matter.
    """
    key = label_key(label)
    for candidate in (key, key.removesuffix("s")):
        if candidate in ALIASES:
            return ALIASES[candidate]
        if candidate in _BY_VALUE:
            return _BY_VALUE[candidate]
    return None


def alike(one: CellClass, other: CellClass) -> bool:
    """Whether two names of a cell agree: a finer class agrees with the one that it is reported under."""
    return one is other or one is rolled_up(other) or rolled_up(one) is other


def rolled_up(cls: CellClass) -> CellClass:
    """Return the class under which ``cls`` is reported in a five-part differential."""
    return cls.info.parent or cls
