"""The colours that a laboratory's dyes take: known or not, whatever their strength, and without any cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.contracts.laboratory import Gamut
from shared.contracts.ontology import CellClass
from shared.vision import gamut
from shared.vision.colour import SiteView
from shared.vision.gamut import BINS, LEAST_IMAGES, colours, strangeness
from shared.vision.preprocessing import Pixels
from tests.client_node.analysis.factories import draw_field

SPOTS = [(CellClass.NEUTROPHIL, 150.0, 120.0), (CellClass.EOSINOPHIL, 400.0, 200.0)]


def turned(image: Pixels, by: int) -> Pixels:
    """Another stain: the hue turned (256 is once round)."""
    hue = np.array(Image.fromarray(image).convert("HSV"))
    hue[..., 0] = (hue[..., 0].astype(int) + by) % 256
    return np.asarray(Image.fromarray(hue, "HSV").convert("RGB"))


@pytest.fixture(scope="module")
def known() -> Gamut:
    found = gamut.fit(draw_field(0, SPOTS, seed)[0] for seed in range(LEAST_IMAGES))
    assert found is not None
    return found


def score(known: Gamut, image: Pixels) -> float:
    found = colours(image)
    assert found is not None
    return strangeness(known, found)


@pytest.mark.parametrize("seed", [100, 101])
def test_fields_of_the_laboratory_are_known_with_white_cells_and_without(known: Gamut, seed: int) -> None:
    assert score(known, draw_field(0, SPOTS, seed)[0]) < 0.5
    assert score(known, draw_field(0, [], seed)[0]) < 0.5  # red cells and platelets alone


@pytest.mark.parametrize("by", [-32, 64, 96, 128])
def test_another_hue_is_strange(known: Gamut, by: int) -> None:
    assert score(known, turned(draw_field(0, SPOTS, 100)[0], by)) > 2.0


@pytest.mark.parametrize("strength", [0.8, 1.25])
def test_more_or_less_of_the_dye_is_not_another_hue(known: Gamut, strength: float) -> None:
    paler = SiteView(factors=(strength, strength, strength)).coloured(draw_field(0, SPOTS, 100)[0])
    assert score(known, paler) < 1.0


def test_glass_tells_nothing_and_few_images_make_no_gamut() -> None:
    assert colours(np.full((100, 100, 3), 240, np.uint8)) is None
    assert gamut.fit(draw_field(0, SPOTS, seed)[0] for seed in range(LEAST_IMAGES - 1)) is None


def test_a_gamut_is_small_and_holds_a_part_of_all_colours(known: Gamut) -> None:
    assert len(known.model_dump_json()) < 300
    assert 20 < int(known.bins, 16).bit_count() < BINS / 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 60), width=st.integers(1, 60), dark=st.integers(1, 255))
def test_any_image_has_a_score_or_none(known: Gamut, seed: int, height: int, width: int, dark: int) -> None:
    image = np.random.default_rng(seed).integers(0, dark, (height, width, 3)).astype(np.uint8)
    found = colours(image)
    assert found is None or 0.0 <= strangeness(known, found) <= 1.0 / known.limit + 1e-9
