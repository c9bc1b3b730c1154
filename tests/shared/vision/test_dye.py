"""Bringing a laboratory's dye near to another's by Reinhard's and Macenko's methods, and never out of bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from shared.contracts.laboratory import Dye
from shared.contracts.training import (
    CalibrationSummary,
)
from shared.vision import dye
from shared.vision.colour import SiteView, views_towards
from shared.vision.dye import MOST_TURN, Macenko, Reinhard, dye_of, macenko, recoloured, reinhard, stained_pixels
from shared.vision.preprocessing import WHITE, Pixels

AZURE, EOSIN = (0.72, 0.62, 0.31), (0.22, 0.86, 0.46)
PURPLER, PINKER = (0.62, 0.70, 0.35), (0.10, 0.80, 0.59)


def cell(azure: tuple[float, ...], eosin: tuple[float, ...], strength: float = 1.0, seed: int = 0) -> Pixels:
    """A crop: glass, cytoplasm mostly of one dye, a nucleus mostly of the other."""
    random = np.random.default_rng(seed)
    amounts = np.zeros((288, 288, 2))
    amounts[60:228, 60:228] = (0.1, 0.7)
    amounts[102:186, 102:186] = (1.1, 0.2)
    amounts *= (
        strength * random.uniform(0.7, 1.3, (288, 288, 1)) * np.where(random.uniform(size=(288, 288, 2)) < 0.9, 1, 0)
    )
    unit = [np.asarray(one) / np.linalg.norm(one) for one in (azure, eosin)]
    return np.asarray(np.clip(np.exp(-amounts @ np.stack(unit)) * (WHITE + 1) - 1.0, 0, 255), np.uint8)


def seen(*crops: Pixels) -> Dye:
    found = dye_of(stained_pixels(crops))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def own() -> Pixels:
    return cell(AZURE, EOSIN, 0.8)


@pytest.fixture(scope="module")
def wanted() -> Dye:
    return seen(cell(PURPLER, PINKER, 1.2, seed=1))


def test_the_two_dyes_are_found_and_the_bluer_one_comes_first(own: Pixels) -> None:
    found = seen(own)
    assert found.stains is not None
    for stain, true in zip(found.stains, (AZURE, EOSIN), strict=True):
        assert np.dot(stain, true) / np.linalg.norm(true) > np.cos(np.radians(4.0))


def test_macenko_turns_both_dyes_and_their_strength(own: Pixels, wanted: Dye) -> None:
    change = macenko(seen(own), wanted)
    assert change is not None
    found = seen(recoloured(own, change))
    assert found.stains is not None
    assert found.strengths is not None
    assert wanted.stains is not None
    assert wanted.strengths is not None
    for stain, goal in zip(found.stains, wanted.stains, strict=True):
        assert np.dot(stain, goal) > np.cos(np.radians(3.0))
    assert found.strengths == pytest.approx(wanted.strengths, rel=0.1)


def test_reinhard_brings_mean_and_spread_over(own: Pixels, wanted: Dye) -> None:
    change = reinhard(seen(own), wanted)
    assert change is not None
    dark = own[dye._TABLE[own].mean(axis=-1) > dye.STAINED][None]
    lab = rgb2lab(recoloured(dark, change))[0]
    assert lab.mean(axis=0) == pytest.approx(wanted.lab_mean, abs=2.5)
    assert lab.std(axis=0) == pytest.approx(wanted.lab_deviation, rel=0.25)


@pytest.mark.parametrize("method", [reinhard, macenko])
def test_glass_stays_glass_whatever_the_dye_becomes(own: Pixels, wanted: Dye, method: object) -> None:
    assert callable(method)
    glass = np.full((40, 40, 3), round(WHITE), np.uint8)
    assert np.abs(recoloured(glass, method(seen(own), wanted)).astype(int) - glass).max() <= 1
    white = np.full((40, 40, 3), 255, np.uint8)
    assert np.abs(recoloured(white, method(seen(own), wanted)).astype(int) - white).max() <= 8


@pytest.mark.parametrize("method", [reinhard, macenko])
def test_a_known_dye_is_hardly_changed(own: Pixels, method: object) -> None:
    assert callable(method)
    assert np.abs(recoloured(own, method(seen(own), seen(own))).astype(int) - own).max() <= 3


def test_what_is_too_far_off_is_not_forced(own: Pixels, wanted: Dye) -> None:
    green = wanted.model_copy(update={"lab_mean": (50.0, -60.0, 40.0), "stains": ((0.9, 0.1, 0.4), (0.1, 0.2, 0.97))})
    assert reinhard(seen(own), green) is None
    assert macenko(seen(own), green) is None
    assert seen(own).stains is not None
    assert MOST_TURN < 45.0


def test_no_dye_and_one_dye_have_no_two_directions(wanted: Dye) -> None:
    glass = np.full((90, 90, 3), 240, np.uint8)
    assert dye_of(stained_pixels([glass])) is None
    assert dye_of(stained_pixels([])) is None
    one = seen(np.full((90, 90, 3), (90, 60, 150), np.uint8))
    assert one.stains is None
    assert macenko(one, wanted) is None
    card = CalibrationSummary(temperature=1.0, conformal_quantile=0.9, dye=wanted)
    assert list(views_towards(np.zeros((0, 3), np.uint8), card)) == []


def test_a_card_names_the_views_to_try_and_they_survive_json(own: Pixels, wanted: Dye) -> None:
    card = CalibrationSummary(temperature=1.0, conformal_quantile=0.9, density=(0.7, 0.9, 0.5), dye=wanted)
    views = list(views_towards(stained_pixels([own]), card))
    assert [view.method for view in views] == ["density", "reinhard", "macenko"]
    assert [SiteView.model_validate_json(view.model_dump_json()) for view in views] == views
    assert not any(view.plain for view in views)
    assert CalibrationSummary.model_validate_json(card.model_dump_json()) == card


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 40), width=st.integers(1, 40), flat=st.booleans())
def test_any_crop_can_be_recoloured(seed: int, height: int, width: int, flat: bool) -> None:
    random = np.random.default_rng(seed)
    crop = random.integers(0, 256, (1, 1, 3) if flat else (height, width, 3)).astype(np.uint8)
    crop = np.broadcast_to(crop, (height, width, 3)).copy()
    turned = ((1.4, -0.3, 0.0), (0.1, 0.8, 0.1), (0.0, 0.2, 1.1))
    changes: list[Reinhard | Macenko] = [
        Reinhard(scale=(2.0, 0.5, 2.0), own=(60.0, 20.0, -20.0), wanted=(30.0, 50.0, -50.0)),
        Macenko(mixing=turned),
    ]
    for change in changes:
        found = recoloured(crop, change)
        assert found.shape == crop.shape
        assert found.dtype == np.uint8
