"""Disc morphology beside scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from client_node.analysis.morphology import closed, dilated, eroded, filled, opened


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), radius=st.integers(0, 9), seed=st.integers(0, 99),
    share=st.sampled_from([0.02, 0.5, 0.98]),
)  # fmt: skip
def test_discs_do_what_scipys_do(height: int, width: int, radius: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    axis = np.arange(-radius, radius + 1)
    disc = axis[None, :] ** 2 + axis[:, None] ** 2 <= radius**2
    assert np.array_equal(dilated(mask, radius), ndimage.binary_dilation(mask, disc))
    assert np.array_equal(eroded(mask, radius), ndimage.binary_erosion(mask, disc))
    assert np.array_equal(closed(mask, radius), ndimage.binary_closing(mask, disc))
    assert np.array_equal(opened(mask, radius), ndimage.binary_opening(mask, disc))
    assert np.array_equal(filled(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("full", [True, False])
def test_discs_on_uniform_masks(full: bool) -> None:
    mask = np.full((20, 30), full)
    assert dilated(mask, 3).all() == full
    assert eroded(mask, 3).sum() == (14 * 24 if full else 0)
