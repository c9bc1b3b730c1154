"""The search for white cells: drawn fields, real fields, and anything else."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.feature import peak_local_max

from client_node.analysis.detection import Box, detect_white_cells
from client_node.analysis.detection.proposals import peaks_of
from client_node.analysis.quality import brightness, focus
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import draw_field

DATA = Path(os.environ.get("HEMATOVISION_DATA", Path(__file__).parents[4] / "shared" / "data"))
_KINDS = [CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL]


def _holds(found: Box, truth: Box) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return truth[0] <= x <= truth[2] and truth[1] <= y <= truth[3]


@pytest.mark.parametrize("site", [0, 1, 2])
def test_detection_finds_the_drawn_cells_of_every_stain(site: int) -> None:
    places = [(100, 100), (300, 120), (500, 110), (200, 280)]
    spots = [(cls, float(x), float(y)) for cls, (x, y) in zip(_KINDS, places, strict=True)]
    image, truth = draw_field(site, spots)
    found = detect_white_cells(image)
    assert len(found) == 4
    assert all(any(_holds(box, one) for box in found) for one in truth)


def test_detection_splits_two_touching_cells() -> None:
    image, truth = draw_field(0, [(CellClass.LYMPHOCYTE, 300.0, 200.0), (CellClass.LYMPHOCYTE, 357.0, 205.0)], seed=3)
    found = detect_white_cells(image)
    assert len(found) == 2
    assert all(any(_holds(box, one) for box in found) for one in truth)


def test_detection_scales_its_boxes_to_a_large_field() -> None:
    image, (truth,) = draw_field(0, [(CellClass.MONOCYTE, 300.0, 200.0)])
    large = np.asarray(Image.fromarray(image).resize((1920, 1440)))
    (found,) = detect_white_cells(large)
    assert _holds(found, (truth[0] * 3, truth[1] * 3, truth[2] * 3, truth[3] * 3))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_detection_of_an_empty_field_finds_nothing(level: int) -> None:
    assert detect_white_cells(np.full((480, 640, 3), level, np.uint8)) == []


@settings(max_examples=25, deadline=None)
@given(width=st.integers(8, 200), height=st.integers(8, 200), seed=st.integers(0, 999), smooth=st.booleans())
def test_detection_takes_any_picture_and_stays_inside_it(width: int, height: int, seed: int, smooth: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if smooth:
        image = np.asarray(Image.fromarray(image).resize((4, 4)).resize((width, height)))
    for x0, y0, x1, y1 in detect_white_cells(image):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    assert np.isfinite([focus(image), brightness(image)]).all()


@given(seed=st.integers(0, 199), apart=st.integers(2, 14))
def test_peaks_are_those_of_scikit_image(seed: int, apart: int) -> None:
    random = np.random.default_rng(seed)
    plane = ndimage.gaussian_filter(random.random((60, 80)), 3.0)
    thickness = np.asarray(plane - plane.min(), np.float32)
    components, _ = ndimage.label(thickness > 0.5 * thickness.max())
    expected = peak_local_max(thickness, min_distance=apart, labels=components, exclude_border=False)
    assert np.array_equal(peaks_of(thickness, components, apart), expected)


def test_focus_is_the_variance_of_the_laplacian() -> None:
    image, _ = draw_field(0, [(CellClass.NEUTROPHIL, 200, 200)])
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert focus(image) == pytest.approx(ndimage.laplace(grey).var(), rel=1e-4)


def test_quality_sees_blur_and_darkness() -> None:
    image, _ = draw_field(0, [(CellClass.NEUTROPHIL, 300.0, 200.0)])
    small = Image.fromarray(image).resize((40, 30)).resize((640, 480))
    assert focus(np.asarray(small)) < 0.5 * focus(image)
    assert brightness(image // 3) < 0.5 * brightness(image)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "labels.csv").is_file(), reason="the real smears are not here (HEMATOVISION_DATA)")
def test_detection_on_real_test_fields() -> None:
    rows = list(csv.DictReader((DATA / "labels.csv").read_text().splitlines()))
    fields = [row["path"] for row in rows if row["kind"] == "field" and row["split"] == "test"][:25]
    hits = truths = finds = 0
    for path in fields:
        boxes = [
            (int(row["xmin"]), int(row["ymin"]), int(row["xmax"]), int(row["ymax"]))
            for row in rows
            if row["path"] == path and row["kind"] == "box"
        ]
        with Image.open(DATA / path) as image:
            found = detect_white_cells(np.asarray(image.convert("RGB")))
        hits += sum(any(_holds(box, one) for box in found) for one in boxes)
        truths, finds = truths + len(boxes), finds + len(found)
    assert hits / truths >= 0.95
    assert hits / finds >= 0.85
