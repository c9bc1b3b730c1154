"""Exact intervals against published vectors; the denominator rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.ontology import CellClass
from shared.statistics import clopper_pearson, differential, per_100_white_cells

N, E, R = CellClass.NEUTROPHIL, CellClass.EOSINOPHIL, CellClass.ERYTHROBLAST


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 100, 0, 3.6), (1, 100, 0.0, 5.4), (5, 100, 1.6, 11.3), (10, 100, 4.9, 17.6), (50, 100, 39.8, 60.2),
        (0, 200, 0, 1.8), (2, 200, 0.1, 3.6), (10, 200, 2.4, 9.0),
        (20, 200, 6.2, 15.0), (100, 200, 42.9, 57.1),
    ],
)  # fmt: skip
def test_clopper_pearson_gives_the_ruemke_limits(count: int, total: int, low: float, high: float) -> None:
    found = clopper_pearson(count, total)
    assert (round(found[0], 1), round(found[1], 1)) == (low, high)


def test_clopper_pearson_without_cells_knows_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 100.0)


@pytest.mark.parametrize(("count", "total", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0), (1, 5, 0.0)])
def test_clopper_pearson_refuses_the_impossible(count: int, total: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"must|not within"):
        clopper_pearson(count, total, confidence)


@given(total=st.integers(1, 2000), part=st.floats(0, 1))
def test_clopper_pearson_holds_the_estimate_and_mirrors(total: int, part: float) -> None:
    count = round(part * total)
    low, high = clopper_pearson(count, total)
    assert 0 <= low <= 100 * count / total <= high <= 100
    mirrored = clopper_pearson(total - count, total)
    assert mirrored == pytest.approx((100 - high, 100 - low), abs=1e-6)


def test_differential_leaves_nucleated_red_cells_out_of_the_denominator() -> None:
    found = differential([N, N, N, E, R, R])
    assert list(found) == [N, E]
    assert (found[N].count, found[N].percent) == (3, 75.0)
    assert per_100_white_cells(R, [N, N, N, E, R, R]) == 50.0


def test_differential_of_nothing_that_counts_is_empty() -> None:
    assert differential([R, R]) == {}
    assert per_100_white_cells(R, [R]) is None
