"""Looks at cells."""

import numpy as np
import pytest
import torch

from client_node.training import augment
from client_node.training.augment import STRENGTHS, SURROUND, centre, looks
from shared.contracts.training import Augmentation

SIDE = round(64 * SURROUND)


@pytest.mark.parametrize("strength", list(Augmentation))
def test_looks_depend_on_their_seed_alone(strength: Augmentation) -> None:
    crops = torch.from_numpy(np.random.default_rng(0).random((5, 3, SIDE, SIDE), np.float32))
    one, two, other = (looks(crops, 64, STRENGTHS[strength], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (5, 3, 64, 64)
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)
    assert 0.0 <= float(one.min()) <= float(one.max()) <= 1.0


def test_looks_show_no_empty_corner() -> None:
    crops = torch.full((20, 3, SIDE, SIDE), 0.8)
    for seed in range(5):
        seen = looks(crops, 64, STRENGTHS[Augmentation.MILD], np.random.default_rng(seed))
        assert float(seen.std(dim=(2, 3)).max()) < 0.01  # one colour in, one colour out
        assert float(seen.min()) > 0.3


def test_centre_is_the_middle_as_it_is() -> None:
    side = 144
    crops = torch.zeros(1, 3, round(side * SURROUND), round(side * SURROUND))
    margin = (crops.shape[-1] - side) // 2
    crops[:, :, margin : margin + side, margin : margin + side] = 1.0
    seen = centre(crops, side)
    assert float(seen[..., 2:-2, 2:-2].min()) > 0.99
    assert float(seen.mean()) > 0.98


def test_dyes_are_varied_in_their_own_directions() -> None:
    """Without mixing, white stays white and each dye's colour stays on the line of its optical density."""
    strength = STRENGTHS[Augmentation.STRONG]
    white = torch.ones(4, 3, 8, 8)
    seen = augment.recoloured(white, strength, np.random.default_rng(0))
    assert float(seen.min()) > 0.6
    dark = augment.recoloured(torch.full((200, 3, 4, 4), 0.3), strength, np.random.default_rng(1))
    spread = dark.mean(dim=(2, 3)).std(dim=0)
    assert bool((spread > 0.05).all())
