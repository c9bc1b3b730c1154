"""Flags held against the truth of a pseudo-smear."""

from collections import Counter

from deploy.demo.truth import check_flags
from shared.contracts.analysis import Flag, FlagEvidence, Quality, Severity, Smear
from shared.contracts.ontology import CellClass


def smear(*flags: Flag) -> Smear:
    quality = Quality(white_cells=40, focus=100, brightness=200, ood_fraction=0)
    return Smear(
        id="s",
        fields=(),
        cells=(),
        differential={},
        flags=flags,
        quality=quality,
        model_version="m",
        engine="onnxruntime",
    )


def flag(rule: str, *, quality: bool = False) -> Flag:
    evidence = FlagEvidence(text="because")
    return Flag(id=rule, severity=Severity.URGENT, evidence=evidence, kind="quality" if quality else "morphology")


TRUTH = Counter({CellClass.NEUTROPHIL: 34, CellClass.IMMATURE_GRANULOCYTE: 6, CellClass.ERYTHROBLAST: 5})


def test_check_flags_supported_by_the_truth() -> None:
    (check,) = check_flags(smear(flag("immature.granulocytes")), name="s", truth=TRUTH)
    assert (check.supported, check.truth_count, check.truth_total) == (True, 6, 40)


def test_check_flags_not_supported_by_the_truth() -> None:
    (check,) = check_flags(smear(flag("eosinophilia")), name="s", truth=TRUTH)
    assert not check.supported


def test_check_flags_leaves_quality_out() -> None:
    assert check_flags(smear(flag("too_few_cells", quality=True)), name="s", truth=TRUTH) == []
