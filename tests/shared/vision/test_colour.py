"""Bringing one laboratory's dye near to another's."""

import numpy as np
import pytest
from pydantic import ValidationError

from shared.vision.colour import FACTORS, SiteView, density, towards
from shared.vision.preprocessing import Pixels


def stained(optical: tuple[float, float, float], seed: int = 0) -> Pixels:
    """A crop half glass, half dyed with this optical density."""
    random = np.random.default_rng(seed)
    values = np.full((60, 60, 3), 250.0)
    values[:, 30:] = 256.0 * np.exp(-np.array(optical)) - 1.0
    return np.clip(values + random.normal(0, 1, values.shape), 0, 255).astype(np.uint8)


def test_density_is_that_of_the_stained_pixels_alone() -> None:
    found = density([stained((0.5, 0.8, 0.3)), stained((0.5, 0.8, 0.3), 1)])
    assert found == pytest.approx((0.5, 0.8, 0.3), abs=0.02)


def test_glass_has_no_density() -> None:
    assert density([np.full((40, 40, 3), 250, np.uint8)]) is None
    assert density([]) is None


def test_a_view_brings_the_dye_to_what_is_wanted() -> None:
    crop = stained((0.35, 0.56, 0.2))
    own = density([crop])
    assert own is not None
    seen = density([towards(own, (0.5, 0.8, 0.3)).coloured(crop)])
    assert seen == pytest.approx((0.5, 0.8, 0.3), abs=0.02)


def test_no_dye_is_changed_beyond_the_limits() -> None:
    assert towards((0.1, 0.1, 3.0), (2.0, 0.1, 0.1)).factors == (FACTORS[1], 1.0, FACTORS[0])
    with pytest.raises(ValidationError):
        SiteView(factors=(3.0, 1.0, 1.0))


def test_the_plain_view_changes_nothing() -> None:
    crop = stained((0.4, 0.6, 0.3))
    assert SiteView().plain
    assert SiteView().coloured(crop) is crop
    assert not SiteView(surround=1.2).plain
