"""What a site's own good images look like, and what lies outside."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from client_node.analysis.quality import summary
from client_node.analysis.ranges import (
    LEAST_IMAGES,
    Ranges,
    SiteRanges,
    faults,
    fit,
    known_dye,
    load_ranges,
    look,
    save_ranges,
)
from client_node.analysis.rules import Evidence, flags, load_rules
from shared.contracts.analysis import Quality
from shared.contracts.laboratory import KnownLaboratory
from shared.contracts.ontology import CellClass
from shared.vision.colour import SiteView
from tests.client_node.analysis.factories import draw_field, make_cells, make_quality

SPOTS = [(CellClass.NEUTROPHIL, 150.0, 120.0), (CellClass.EOSINOPHIL, 400.0, 200.0)]


def field(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return draw_field(0, SPOTS, seed)[0]


@pytest.fixture(scope="module")
def ranges() -> Ranges:
    found = fit(look(field(seed)) for seed in range(LEAST_IMAGES))
    assert found is not None
    return found


def figures(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Quality:
    seen = look(image)
    return summary((), [seen.focus], [seen.brightness], [seen.dye], [], {})


@pytest.mark.parametrize("seed", range(100, 106))
def test_good_images_that_were_not_fitted_on_have_no_fault(ranges: Ranges, seed: int) -> None:
    assert faults(ranges, figures(field(seed))) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda image: ndimage.gaussian_filter(image, (2.5, 2.5, 0)), "blurred"),
        (lambda image: (image * 0.55).astype(np.uint8), "exposed"),
        (SiteView(factors=(0.5, 0.5, 0.5)).coloured, "too weakly"),
        (SiteView(factors=(2.0, 2.0, 2.0)).coloured, "too strongly"),
    ],
)
def test_a_fault_is_named_with_the_sites_own_range(ranges: Ranges, change: object, word: str) -> None:
    assert callable(change)
    found = faults(ranges, figures(np.ascontiguousarray(change(field(200)))))
    assert any(word in fault and f"{LEAST_IMAGES} good images" in fault for fault in found)


def test_a_site_without_images_has_the_dye_of_known_laboratories_widened() -> None:
    known = [KnownLaboratory(dye_of_fields=(0.8, 1.1)), KnownLaboratory(dye_of_fields=(1.0, 1.5)), KnownLaboratory()]
    assert known_dye(known, fields=True) == pytest.approx((0.64, 1.875))
    assert known_dye(known, fields=False) is None


@pytest.mark.parametrize(("dye", "word"), [(0.5, "too weakly"), (1.2, None), (2.0, "too strongly")])
def test_image_quality_knows_a_stain_limit_without_own_images(dye: float, word: str | None) -> None:
    seen = Evidence(make_cells(CellClass.NEUTROPHIL), make_quality(dye=dye), dye=(0.64, 1.875))
    found = [flag.evidence.text for flag in flags(load_rules(), seen) if flag.id == "image.quality"]
    assert bool(found) is (word is not None)
    assert all(word is not None and word in text and "laboratories that taught the model" in text for text in found)


def test_too_few_images_give_no_range() -> None:
    assert fit(look(field(seed)) for seed in range(LEAST_IMAGES - 1)) is None


def test_ranges_are_kept_and_a_damaged_file_tells_nothing(ranges: Ranges, tmp_path: Path) -> None:
    assert load_ranges(tmp_path) == SiteRanges()
    save_ranges(tmp_path, SiteRanges(fields=ranges))
    assert load_ranges(tmp_path) == SiteRanges(fields=ranges)
    (tmp_path / "quality.json").write_text('{"fields": 7}')
    assert load_ranges(tmp_path) == SiteRanges()
