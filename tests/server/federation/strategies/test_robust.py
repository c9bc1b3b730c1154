"""Trimmed mean and Multi-Krum: against plain numpy, and against one bad site of five."""

import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.federation.strategies import spool as spools
from server.federation.strategies.build import build
from server.federation.strategies.multikrum import gram, points, select
from server.federation.strategies.port import Closed, Result, Sent
from server.federation.strategies.registry import (
    FedAvgParameters,
    MultiKrumParameters,
    Parameters,
    TrimmedMeanParameters,
)
from server.federation.strategies.spool import Spool
from server.federation.strategies.trimmed_mean import trimmed
from shared.contracts.errors import NoSpaceError, RunFailedError
from tests.server.federation.strategies.synthetic import Array, sent, update

TRIM, KRUM = TrimmedMeanParameters(norm_limit=0), MultiKrumParameters(norm_limit=0)
START = {"a": np.array([[0.5, -1.0], [0.25, 2.0]], np.float32), "b": np.array([0.125, 3.0], np.float32)}
WIDTH = 6


@pytest.fixture(autouse=True)
def _narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every spool be read in several strips."""
    monkeypatch.setattr(spools, "STRIP_BYTES", 100)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _flat(tensors: dict[str, Array]) -> NDArray[np.float64]:
    return np.concatenate([tensors[name].reshape(-1) for name in sorted(tensors)]).astype(np.float64)


def _round(parameters: Parameters, rows: NDArray[np.float32], folder: Path) -> tuple[Sent, Closed, Result]:
    """Play a round in which site i adds row i to what it was sent."""
    begun = sent(START)
    aggregation = build(parameters, folder=folder).begin(begun)
    for place, row in enumerate(rows):
        changed = {"a": begun.tensors["a"] + row[:4].reshape(2, 2), "b": begun.tensors["b"] + row[4:]}
        aggregation.add(update(f"s{place}", changed))
    return begun, aggregation.close(), aggregation.result()


def _mean(parameters: Parameters, rows: NDArray[np.float32], folder: Path) -> NDArray[np.float64]:
    """Return the round's change."""
    begun, _, result = _round(parameters, rows, folder)
    return _flat(result.tensors) - _flat(begun.tensors)


@pytest.mark.parametrize(
    ("sites", "share", "cut"),
    [(3, 0.2, 1), (4, 0.2, 1), (5, 0.2, 1), (10, 0.2, 2), (10, 0.3, 3), (5, 0.49, 2), (4, 0.49, 1), (100, 0.29, 29)],
)
def test_trimmed_mean_is_the_mean_of_the_sorted_middle(sites: int, share: float, cut: int, folder: Path) -> None:
    rows = np.random.default_rng(sites).normal(size=(sites, WIDTH)).astype(np.float32)
    middle = np.sort(rows.astype(np.float64), axis=0)[cut : sites - cut]
    got = _mean(TrimmedMeanParameters(trim_share=share, norm_limit=0), rows, folder)
    np.testing.assert_allclose(got, middle.mean(axis=0), atol=1e-6)
    assert trimmed(sites, share) == cut


def _krum(rows: NDArray[np.float64], bad: int) -> list[int]:
    """Blanchard et al.'s scores, word by word."""
    n = len(rows)
    scores = []
    for i in range(n):
        distances = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(distances[: n - bad - 2]))
    return sorted(int(i) for i in np.argsort(scores)[: n - bad])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), bad=st.integers(1, 3), more=st.integers(0, 3))
def test_multikrum_selects_what_the_papers_scores_say(seed: int, bad: int, more: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(2 * bad + 3 + more, 40))
    assert select(rows @ rows.T, bad=bad) == _krum(rows, bad)


def test_multikrum_averages_those_it_selects_and_names_the_others(folder: Path) -> None:
    rows = np.random.default_rng(7).normal(size=(7, WIDTH)).astype(np.float32)
    parameters = MultiKrumParameters(byzantine_sites=2, norm_limit=0)
    begun, closed, result = _round(parameters, rows, folder)
    chosen = _krum(rows.astype(np.float64), 2)
    np.testing.assert_allclose(
        _flat(result.tensors) - _flat(begun.tensors), rows[chosen].astype(np.float64).mean(axis=0), atol=1e-6
    )
    assert set(closed.left_out) == {f"s{row}" for row in set(range(7)) - set(chosen)}
    assert closed.refused == {}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), huge=st.sampled_from([1.0, 1e4, 1e8]))
def test_points_keep_the_updates_distances_also_beside_a_huge_one(seed: int, huge: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(6, 50))
    rows[0] *= huge
    rows[2] = rows[1]  # singular
    rows[3] = 0.0
    placed = points(rows @ rows.T)
    for i in range(1, 6):
        for j in range(1, 6):
            expected = ((rows[i] - rows[j]) ** 2).sum()
            np.testing.assert_allclose(((placed[i] - placed[j]) ** 2).sum(), expected, rtol=1e-9, atol=1e-11)


def _honest(seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    common = random.normal(size=WIDTH)
    return (common + 0.1 * random.normal(size=(4, WIDTH))).astype(np.float32)


ATTACKS: dict[str, Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]] = {
    "random": lambda _honest, random: random.normal(scale=5.0, size=WIDTH).astype(np.float32),
    "sign-flipped": lambda honest, _random: (-honest.mean(axis=0)).astype(np.float32),
    "huge": lambda _honest, random: (1e4 * random.normal(size=WIDTH)).astype(np.float32),
    "huge, the same way": lambda honest, _random: (100 * honest.mean(axis=0)).astype(np.float32),
}


@pytest.mark.parametrize("attack", ATTACKS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), place=st.integers(0, 4))
def test_one_bad_site_of_five_does_not_move_the_result_out_of_the_honest_ones(
    attack: str, folder: Path, seed: int, place: int
) -> None:
    honest = _honest(seed)
    bad = ATTACKS[attack](honest, np.random.default_rng(seed + 1))
    rows = np.insert(honest, place, bad, axis=0)
    low, high = honest.min(axis=0) - 1e-3, honest.max(axis=0) + 1e-3
    got = _mean(TRIM, rows, folder)
    assert (got >= low).all()
    assert (got <= high).all()
    begun, closed, result = _round(KRUM, rows, folder)
    np.testing.assert_allclose(_flat(result.tensors) - _flat(begun.tensors), honest.mean(axis=0), atol=2e-3)
    assert list(closed.left_out) == [f"s{place}"]


def test_fedavg_is_moved_by_what_the_robust_ones_withstand(folder: Path) -> None:
    rows = np.insert(_honest(1), 2, 1e3, axis=0).astype(np.float32)
    assert np.abs(_mean(FedAvgParameters(norm_limit=0), rows, folder)).min() > 100


@pytest.mark.parametrize(("parameters", "least"), [(TRIM, 3), (KRUM, 5), (MultiKrumParameters(byzantine_sites=2), 7)])
def test_too_few_updates_end_the_round(parameters: Parameters, least: int, folder: Path) -> None:
    with pytest.raises(RunFailedError, match=f"needs {least} hospitals in a round, {least - 1} took part"):
        _round(parameters, np.zeros((least - 1, WIDTH), np.float32), folder)


def test_finder_is_judged_among_those_who_taught_it(folder: Path) -> None:
    start = {"head": np.zeros(2, np.float32), "finder.w": np.zeros(2, np.float32)}
    aggregation = build(TRIM, folder=folder).begin(sent(start))
    for place, (head, finder, boxes) in enumerate([(1, 0, 0), (2, 0, 0), (3, 5, 9), (4, 6, 9), (99, -99, 9)]):
        changed = {"head": np.full(2, head, np.float32), "finder.w": np.full(2, finder, np.float32)}
        aggregation.add(update(f"s{place}", changed, boxes=boxes))
    assert aggregation.close().notes == ()
    np.testing.assert_array_equal(aggregation.result().tensors["head"], [3, 3])
    np.testing.assert_array_equal(aggregation.result().tensors["finder.w"], [5, 5])


def test_finder_stays_where_too_few_taught_it_for_a_robust_mean(folder: Path) -> None:
    start = {"head": np.zeros(2, np.float32), "finder.w": np.full(2, 7, np.float32)}
    aggregation = build(TRIM, folder=folder).begin(sent(start))
    for place in range(4):
        changed = {"head": np.ones(2, np.float32), "finder.w": np.zeros(2, np.float32)}
        aggregation.add(update(f"s{place}", changed, boxes=int(place < 2)))
    [note] = aggregation.close().notes
    assert note == "The finder stays as it was: Trimmed mean needs 3 hospitals to teach it, not 2."
    np.testing.assert_array_equal(aggregation.result().tensors["finder.w"], [7, 7])


def test_spool_refuses_beyond_its_bound_and_keeps_its_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MAX_BYTES", 2 * 16)
    spool = Spool(4, folder)
    for value in (1, 2):
        spool.append([np.full((2, 2), value, np.float32)])
    with pytest.raises(NoSpaceError, match="no more than 2 updates"):
        spool.append([np.full(4, 3, np.float32)])
    rows = np.concatenate([block for _, block in spool.strips()], axis=1)
    np.testing.assert_array_equal(rows, [[1] * 4, [2] * 4])
    np.testing.assert_array_equal(gram(spool), [[4, 8], [8, 16]])


def test_full_disk_refuses_the_update_whole(folder: Path) -> None:
    start = {"head": np.zeros(2, np.float32), "finder.w": np.zeros(100, np.float32)}
    aggregation = build(TRIM, folder=folder).begin(sent(start))
    for place in range(3):
        aggregation.add(update(f"s{place}", {name: array + place for name, array in start.items()}, boxes=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 400 + 200, hard))  # the classifier's row fits, half of the finder's
    try:
        with pytest.raises(NoSpaceError, match="disk has no room"):
            aggregation.add(update("s3", {name: array + 50 for name, array in start.items()}, boxes=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert aggregation.updates == 3
    aggregation.close()
    np.testing.assert_array_equal(aggregation.result().tensors["head"], [1, 1])
    np.testing.assert_array_equal(aggregation.result().tensors["finder.w"], np.ones(100))
