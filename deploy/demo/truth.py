"""Holding a node's flags against what is really on a pseudo-smear."""

from collections import Counter

from deploy.demo.result import FlagCheck
from shared.contracts.analysis import Smear
from shared.contracts.ontology import CellClass

_C = CellClass
MORPHOLOGY: dict[str, tuple[tuple[CellClass, ...], float]] = {
    "immature.granulocytes": ((_C.IMMATURE_GRANULOCYTE, _C.METAMYELOCYTE, _C.MYELOCYTE, _C.PROMYELOCYTE), 2.0),
    "variant.lymphocytes": ((_C.VARIANT_LYMPHOCYTE,), 5.0),
    "eosinophilia": ((_C.EOSINOPHIL,), 6.0),
    "basophilia": ((_C.BASOPHIL,), 2.0),
    "monocytosis": ((_C.MONOCYTE,), 10.0),
    "lymphocytosis": ((_C.LYMPHOCYTE,), 45.0),
    "neutrophilia": ((_C.NEUTROPHIL,), 75.0),
    "nrbc.present": ((_C.ERYTHROBLAST,), 0.0),
}
"""Rule → the classes it is about and the share (percent of white cells) that the truth must exceed to support it."""


def check_flags(smear: Smear, *, name: str, truth: Counter[CellClass]) -> list[FlagCheck]:
    """Return, for each morphological flag that the truth can speak to, whether the truth supports it."""
    total = sum(count for cls, count in truth.items() if cls.info.counts)
    checks = []
    for flag in smear.flags:
        if flag.kind != "morphology" or flag.id not in MORPHOLOGY or not total:
            continue
        classes, limit = MORPHOLOGY[flag.id]
        count = sum(truth[cls] for cls in classes)
        supported = 100 * count / total > limit
        checks.append(FlagCheck(smear=name, flag=flag.id, truth_count=count, truth_total=total, supported=supported))
    return checks
