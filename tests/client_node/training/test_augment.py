"""Looks at a cell."""

import numpy as np

from client_node.training.augment import view


def test_view_depends_on_its_seed_alone() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    one, two, other = (view(crop, 64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_view_shows_no_empty_corner() -> None:
    crop = np.full((80, 80, 3), 200, np.uint8)
    assert all(view(crop, 64, np.random.default_rng(seed)).min() > 90 for seed in range(50))
