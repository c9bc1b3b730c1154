"""Findings: what fits, what is left out, and how it is said."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.contracts.findings import TERM_INFO, Findings, Part, Term
from shared.reporting.findings import Statement, statements


def _said(**findings: Any) -> dict[str, Statement]:
    return {one.key: one for one in statements(Findings.model_validate(findings))}


def test_every_term_has_its_own_code() -> None:
    assert list(TERM_INFO) == list(Term)
    codes = [info.loinc for info in TERM_INFO.values()]
    assert len(set(codes)) == len(codes)


def test_nothing_entered_leaves_nothing_in_the_json() -> None:
    assert Findings().model_dump(mode="json") == {}
    assert Findings().empty
    one = Findings.model_validate({"grades": {"target_cells": 2, "macrocytes": 0}})
    assert one.model_dump(mode="json") == {"grades": {"macrocytes": 0, "target_cells": 2}}
    assert not one.empty


@pytest.mark.parametrize(
    ("findings", "told"),
    [
        ({"grades": {"schistocytes": 4}}, "less than or equal to 3"),
        ({"grades": {"auer_rods": 2}}, "seen or not"),
        ({"schistocytes": {"counted": 10, "schistocytes": 11}}, "more schistocytes than red cells"),
        ({"platelets": {}}, "in a word, or by a count"),
        ({"malaria": {"presence": "not_seen", "species": ["vivax"]}}, "say so first"),
        ({"malaria": {"presence": "seen"}}, "which species"),
        (
            {
                "malaria": {
                    "presence": "seen", "species": ["ovale"],
                    "parasitaemia": {"against": "red_cells", "parasites": 9, "counted": 8},
                }
            },
            "more infected red cells",
        ),
        (
            {
                "malaria": {
                    "presence": "seen", "species": ["ovale"],
                    "parasitaemia": {"against": "white_cells", "parasites": 9, "counted": 200},
                }
            },
            "white-cell count",
        ),
        ({"texts": {"red_cells": "x" * 1001}}, "at most 1000"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(findings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Findings.model_validate(findings)


def test_schistocytes_carry_their_exact_interval_and_what_to_mind() -> None:
    count = _said(schistocytes={"counted": 1000, "schistocytes": 25})["schistocyte-count"]
    assert count.words == "25 of 1,000 red cells = 2.50 % (95 % interval 1.62–3.67 %)"
    assert (count.abnormal, count.remark) == (True, "Above 1 %: suspicious for thrombotic microangiopathy.")
    few = _said(schistocytes={"counted": 400, "schistocytes": 2})["schistocyte-count"]
    assert (few.abnormal, few.remark) == (False, "Fewer than 1,000 red cells were counted.")
    near = _said(schistocytes={"counted": 1000, "schistocytes": 9})["schistocyte-count"]
    assert near.remark == "The interval holds 1 %: count more red cells to settle it."


def test_clumps_warn_of_the_count() -> None:
    said = _said(
        grades={"platelet_clumps": 2},
        platelets={"adequacy": "decreased", "count": {"platelets": 42, "fields": 10, "factor": 15}},
    )
    assert said["platelet-clumps"].remark == "A count by machine may be falsely low: ask for a citrate sample."
    assert said["platelet-adequacy"].remark == "Clumps were seen: the estimate may be too low."
    assert said["platelet-estimate"].words == "about 63 ×10⁹/l (4.2 a field in 10 fields, × 15)"


def test_parasitaemia_has_its_unit_and_tells_an_assumed_count() -> None:
    seen = {"presence": "seen", "species": ["vivax", "falciparum"], "stages": ["gametocyte", "ring"]}
    thin = _said(malaria=seen | {"parasitaemia": {"against": "red_cells", "parasites": 24, "counted": 2000}})
    assert thin["malaria-species"].words == "Plasmodium falciparum and Plasmodium vivax"
    assert thin["malaria-stage"].words == "ring forms, gametocytes"
    assert thin["malaria-parasitaemia"].words.startswith("24 infected of 2,000 red cells = 1.20 %")
    thick = _said(
        malaria=seen
        | {
            "parasitaemia": {
                "against": "white_cells", "parasites": 250, "counted": 200, "white_cells_10e9_l": 8,
                "white_cells_assumed": True,
            }
        }
    )["malaria-parasitaemia"]  # fmt: skip
    assert thick.words == "250 beside 200 white cells = 10,000 /µl at 8 ×10⁹/l white cells"
    assert thick.remark == "The white-cell count is assumed, not this patient's."
    assert thick.measure is not None
    assert (thick.measure.value, thick.measure.ucum) == (10_000, "/uL")


def test_statements_stand_part_by_part_with_their_text_last() -> None:
    said = statements(
        Findings.model_validate(
            {
                "grades": {"platelet_clumps": 0, "anisocytosis": 2},
                "texts": {"red_cells": "Dimorphic.", "platelets": "Large forms."},
            }
        )
    )
    assert [(one.part, one.words, one.loinc) for one in said] == [
        (Part.RED_CELLS, "moderate (2+)", "702-1"),
        (Part.RED_CELLS, "Dimorphic.", "6742-1"),
        (Part.PLATELETS, "not seen", "7796-6"),
        (Part.PLATELETS, "Large forms.", "11125-2"),
    ]
