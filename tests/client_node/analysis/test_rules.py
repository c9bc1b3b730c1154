"""Flag rules: when they fire, with which figures, and what a site may change."""

from pathlib import Path

import pytest

from client_node.analysis.rules import Evidence, class_limits, flags, load_rules
from shared.contracts.analysis import Flag, Severity
from shared.contracts.errors import ConfigError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import make_cells, make_quality

N, L, E, IG = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL, CellClass.IMMATURE_GRANULOCYTE
MYELO, NR, BLAST = CellClass.MYELOCYTE, CellClass.ERYTHROBLAST, CellClass.BLAST


def _flags(*classes: CellClass, **quality: object) -> dict[str, Flag]:
    return {flag.id: flag for flag in flags(load_rules(), Evidence(make_cells(*classes), make_quality(**quality)))}


def test_rules_a_normal_smear_raises_nothing() -> None:
    assert _flags(*[N] * 60, *[L] * 32, *[CellClass.MONOCYTE] * 6, *[E] * 2) == {}


def test_rules_immature_granulocytes_need_two_cells_and_two_percent() -> None:
    assert "immature.granulocytes" not in _flags(*[N] * 30, IG)
    assert "immature.granulocytes" not in _flags(*[N] * 98, IG, IG)
    found = _flags(*[N] * 60, *[L] * 37, IG, IG, MYELO)["immature.granulocytes"]
    assert (found.severity, found.kind) == (Severity.URGENT, "morphology")
    evidence = found.evidence
    assert (evidence.count, evidence.total, evidence.percent, evidence.threshold) == (3, 100, 3.0, 2.0)
    assert evidence.cells == ("c97", "c98", "c99")
    assert "interval crosses the limit" in evidence.text


def test_rules_one_sure_blast_is_critical_and_comes_first() -> None:
    cells = make_cells(*[N] * 50, *[L] * 45, *[E] * 4, BLAST)
    found = flags(load_rules(), Evidence(cells, make_quality(focus=1.0)))
    assert [(flag.id, flag.severity) for flag in found] == [
        ("blast.present", Severity.CRITICAL), ("image.quality", Severity.ROUTINE),
    ]  # fmt: skip


def test_rules_two_possible_blasts_fire_one_does_not() -> None:
    doubtful = [
        cell.model_copy(update={"prediction_set": (L, BLAST), "probability": 0.6}) for cell in make_cells(*[L] * 2)
    ]
    rest = make_cells(*[N] * 100)[2:]
    assert "blast.present" not in {f.id for f in flags(load_rules(), Evidence((doubtful[0], *rest), make_quality()))}
    assert "blast.present" in {f.id for f in flags(load_rules(), Evidence((*doubtful, *rest), make_quality()))}


def test_rules_nucleated_red_cells_count_per_hundred_white_cells() -> None:
    found = _flags(*[N] * 60, *[L] * 40, NR, NR)["nrbc.present"]
    assert (found.evidence.count, found.evidence.total) == (2, 100)
    assert "2.0 per 100" in found.evidence.text


def test_rules_reference_intervals_need_enough_cells() -> None:
    assert "neutropenia" not in _flags(*[L] * 20)
    found = _flags(*[L] * 80, *[N] * 20)
    assert {"neutropenia", "lymphocytosis"} <= set(found)


def test_rules_quality_flags_are_never_morphology() -> None:
    open_cells = tuple(
        cell.model_copy(update={"prediction_set": (), "ood_score": 2.0}) for cell in make_cells(*[N] * 10)
    )
    found = flags(load_rules(), Evidence(open_cells, make_quality(focus=0.0, brightness=30.0)))
    assert {flag.id: flag.kind for flag in found if flag.id != "neutrophilia"} == dict.fromkeys(
        ("uncertain.cells", "out_of_distribution", "too_few_cells", "image.quality"), "quality"
    )


def test_rules_a_strange_smear_says_what_it_was_measured_against() -> None:
    cells = make_cells(*[N] * 10, ood=1.4)
    (flag,) = [
        flag
        for flag in flags(load_rules(), Evidence(cells, make_quality(), compared="the 3 laboratories"))
        if flag.id == "out_of_distribution"
    ]
    assert "median score 1.40; measured against the 3 laboratories): 10 of 10" in flag.evidence.text


def test_rules_without_any_cell_only_say_too_few() -> None:
    assert set(_flags()) == {"too_few_cells"}


def test_rules_site_file_overrides_single_lines(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(
        '[rules."too_few_cells"]\nenabled = false\n[rules."immature.granulocytes"]\nlimit = 50.0\n'
    )
    rules = load_rules(tmp_path)
    assert flags(rules, Evidence(make_cells(*[N] * 10, IG, IG, IG), make_quality())) == ()
    assert rules.version == load_rules().version


@pytest.mark.parametrize("text", ["x = [", '[rules."eosinophilia"]\nlimt = 3\n', '[rules."new"]\ntest = "magic"\n'])
def test_rules_wrong_site_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"rules\.toml"):
        load_rules(tmp_path)


def test_class_limits_are_those_of_every_enabled_rule_on_a_share(tmp_path: Path) -> None:
    assert class_limits(load_rules()) == {
        IG: (2.0,), CellClass.VARIANT_LYMPHOCYTE: (5.0,), N: (40.0, 80.0), L: (15.0, 45.0),
        CellClass.MONOCYTE: (12.0,), E: (7.0,), CellClass.BASOPHIL: (2.0,),
    }  # fmt: skip
    site = '[rules."lymphopenia"]\nenabled = false\n[rules."lymphocytosis"]\nlimit = 50\n'
    (tmp_path / "rules.toml").write_text(site)
    assert class_limits(load_rules(tmp_path))[L] == (50.0,)
