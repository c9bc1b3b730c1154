"""Who holds which cells of a simulation."""

from collections import Counter, defaultdict

import pytest

from client_node.datasets.splits import Split
from deploy.simulate.partition import LEAST_TRAINING, Parts, Sharing, share_out
from shared.contracts.errors import NothingToDoError
from tests.deploy.simulate.cells import CLASSES, cells


def _skew(parts: Parts) -> float:
    """Return the mean share of each hospital's most frequent class among its training cells."""
    shares = []
    for part in parts:
        counts = Counter(cell.cls for cell in part if cell.split is Split.TRAIN)
        shares.append(max(counts.values()) / counts.total())
    return sum(shares) / len(shares)


@pytest.mark.parametrize("sharing", Sharing)
def test_every_cell_is_in_one_part_and_no_group_is_torn(sharing: Sharing) -> None:
    everything = cells(in_group=3)
    parts = share_out(everything, 5, sharing=sharing, alpha=0.3, seed=1)
    assert sorted(cell.hash for part in parts for cell in part) == sorted(cell.hash for cell in everything)
    places = defaultdict(set)
    for number, part in enumerate(parts):
        for cell in part:
            places[cell.group].add(number)
    assert {len(where) for where in places.values()} == {1}


def test_the_same_seed_gives_the_same_parts_and_another_others() -> None:
    first, again, other = (share_out(cells(), 3, sharing=Sharing.DIRICHLET, alpha=0.5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_small_alpha_skews_labels_and_groups_by_chance_do_not() -> None:
    skewed = share_out(cells(), 3, sharing=Sharing.DIRICHLET, alpha=0.1, seed=0)
    even = share_out(cells(), 3, sharing=Sharing.GROUP, alpha=0.1, seed=0)
    assert _skew(skewed) > 0.6
    assert _skew(even) == pytest.approx(1 / len(CLASSES), abs=0.02)


def test_many_hospitals_have_training_cells_each() -> None:
    parts = share_out(cells(train=80), 40, sharing=Sharing.DIRICHLET, alpha=0.1, seed=0)
    assert min(sum(cell.split is Split.TRAIN for cell in part) for part in parts) >= LEAST_TRAINING


def test_too_many_hospitals_are_refused_with_what_to_do() -> None:
    with pytest.raises(NothingToDoError, match="Ask for fewer hospitals"):
        share_out(cells(train=10), 40, sharing=Sharing.GROUP, alpha=1.0)
