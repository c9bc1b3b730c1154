"""Exact intervals against published vectors; the denominator rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from shared.contracts.ontology import CellClass
from shared.statistics import agreement, agreement_of_counts, clopper_pearson, differential, per_100_white_cells

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


TABLE = {
    ("a", "a"): 53, ("a", "b"): 5, ("a", "c"): 2,
    ("b", "a"): 11, ("b", "b"): 14, ("b", "c"): 5,
    ("c", "a"): 1, ("c", "b"): 6, ("c", "c"): 6,
}  # fmt: skip


def test_kappa_is_that_of_scikit_learn() -> None:
    first = [one for (one, _), count in TABLE.items() for _ in range(count)]
    second = [other for (_, other), count in TABLE.items() for _ in range(count)]
    found = agreement(zip(first, second, strict=True))
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert (found.cells, found.agreed) == (103, 73)
    assert found.share == pytest.approx(73 / 103)


@pytest.mark.parametrize(
    "counts",
    [{}, {("a", "a"): 9}, {("a", "a"): 9, ("a", "b"): 4}, {("b", "a"): 2, ("a", "a"): 9, ("a", "b"): 0}],
    ids=["no cells", "one class", "the first says one class", "the second says one class"],
)
def test_kappa_has_no_meaning_where_a_reader_uses_one_class_only(counts: dict[tuple[str, str], int]) -> None:
    found = agreement_of_counts(counts)
    assert (found.kappa, found.low, found.high) == (None, None, None)
    assert (found.cells, found.agreed) == (sum(counts.values()), counts.get(("a", "a"), 0))


def test_interval_of_kappa_is_that_of_the_delta_method() -> None:
    """The published variance against the gradient of kappa itself, by finite differences over the multinomial."""
    total, places = sum(TABLE.values()), list(TABLE)
    shares = np.array([TABLE[place] / total for place in places])

    def kappa(values: NDArray[np.float64]) -> float:
        found = dict(zip(places, values, strict=True))
        observed = sum(value for (one, other), value in found.items() if one == other)
        rows = {c: sum(v for (one, _), v in found.items() if one == c) for c in "abc"}
        columns = {c: sum(v for (_, other), v in found.items() if other == c) for c in "abc"}
        chance = sum(rows[c] * columns[c] for c in "abc")
        return float((observed - chance) / (1 - chance))

    step = 1e-6
    slopes = np.array([(kappa(shares + step * unit) - kappa(shares - step * unit)) / (2 * step) for unit in np.eye(9)])
    error = np.sqrt(((slopes**2 * shares).sum() - (slopes * shares).sum() ** 2) / total)
    found = agreement_of_counts(TABLE)
    assert found.kappa is not None
    assert (found.low, found.high) == pytest.approx((found.kappa - 1.959964 * error, found.kappa + 1.959964 * error))


def test_interval_of_kappa_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(7)
    places, total = list(TABLE), sum(TABLE.values())
    shares = np.array([TABLE[place] / total for place in places])
    truth = agreement_of_counts(TABLE).kappa
    assert truth is not None
    held = 0
    for counts in chance.multinomial(400, shares, size=600):
        found = agreement_of_counts(dict(zip(places, counts.tolist(), strict=True)))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 600 <= 0.98


@pytest.mark.parametrize(
    ("counts", "kappa", "interval"),
    [
        ({}, None, (None, None)),
        ({("a", "a"): 9}, None, (None, None)),
        ({("a", "a"): 5, ("b", "b"): 5}, 1.0, (1.0, 1.0)),
        ({("a", "b"): 5, ("b", "a"): 5}, -1.0, (-1.0, -1.0)),
    ],
)
def test_kappa_at_its_edges(
    counts: dict[tuple[str, str], int], kappa: float | None, interval: tuple[float | None, float | None]
) -> None:
    found = agreement_of_counts(counts)
    assert (found.kappa, (found.low, found.high)) == (kappa, interval)


def test_counts_of_nothing_change_no_kappa() -> None:
    assert agreement_of_counts({**TABLE, ("d", "d"): 0, ("a", "d"): 0}) == agreement_of_counts(TABLE)
