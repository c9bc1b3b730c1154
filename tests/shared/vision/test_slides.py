"""Reading parts of images that do not fit into memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile

from shared.contracts.errors import DataInvalidError
from shared.vision.images import load_image
from shared.vision.slides import Slide, is_slide, slide_series
from tests.shared.vision.slide_files import GLASS, dicom_slide, tiled_tiff

PICTURE = np.random.default_rng(0).integers(0, 255, (100, 120, 3), np.uint8)
_MOST_MEGABYTES = 220

READ_ALL = """
import sys
from pathlib import Path
from shared.vision.slides import Slide
with Slide(Path(sys.argv[1])) as slide:
    for y in range(0, slide.height, 4096):
        for x in range(0, slide.width, 1344):
            slide.region(x, y, 1344, 1344)
    # Not getrusage: its peak begins with what the process was forked from.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(slide.width, slide.height, int(peak.split()[1]) // 1024)
"""


def test_a_huge_tiff_is_read_in_little_memory(tmp_path: Path) -> None:
    file = tiled_tiff(tmp_path / "huge.tif", 20_480, {(10_300, 15_400): PICTURE})
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(file)], check=True, capture_output=True, text=True, timeout=120
    )
    width, height, megabytes = (int(word) for word in done.stdout.split())
    assert (width, height) == (20_480, 20_480)
    assert megabytes < _MOST_MEGABYTES  # its pixels alone are 1,200
    with Slide(file) as slide:
        np.testing.assert_array_equal(slide.region(10_300, 15_400, 120, 100), PICTURE)
        assert set(np.unique(slide.region(0, 0, 64, 64))) == {GLASS}


def test_beyond_the_edge_is_white(tmp_path: Path) -> None:
    with Slide(tiled_tiff(tmp_path / "a.tif", 1024, {})) as slide:
        part = slide.region(1000, 1000, 100, 100)
    assert part.shape == (100, 100, 3)
    assert np.array_equal(np.unique(part[50:, 50:]), [255])
    assert np.array_equal(np.unique(part[:20, :20]), [GLASS])


def test_a_dicom_slide_gives_its_pixels_and_scale(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (512, 768, 3), np.uint8)
    file = dicom_slide(tmp_path / "series", image)
    assert is_slide(file)
    assert slide_series(file).count(".") > 3
    with Slide(file) as slide:
        assert slide.microns == pytest.approx(0.25)
        np.testing.assert_array_equal(slide.region(200, 100, 300, 300), image[100:400, 200:500])


def test_a_field_of_ordinary_size_is_no_slide(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "field.tif", PICTURE, photometric="rgb")
    assert not is_slide(tmp_path / "field.tif")
    assert not is_slide(tmp_path / "field.png")


def test_a_large_camera_image_in_strips_is_a_field(tmp_path: Path) -> None:
    file = tmp_path / "camera.tif"
    tifffile.imwrite(file, np.full((3000, 5000, 3), 200, np.uint8), photometric="rgb", compression="zlib",
                     rowsperstrip=64)  # fmt: skip
    assert not is_slide(file)
    assert load_image(file).shape == (3000, 5000, 3)


@pytest.mark.parametrize("tile", [512, 8704])
def test_a_size_that_no_slide_has_is_refused(tmp_path: Path, tile: int) -> None:
    width = 400_896 if tile == 512 else tile
    glass = np.full((tile, tile), GLASS, np.uint8)
    tifffile.imwrite(tmp_path / "bomb.tif", (glass for _ in range(-(-width // tile))), shape=(tile, width),
                     dtype="uint8", tile=(tile, tile), photometric="minisblack", compression="zlib")  # fmt: skip
    with pytest.raises(DataInvalidError, match="no slide has"):
        Slide(tmp_path / "bomb.tif")


def test_a_slide_without_8_bit_colours_says_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "f.tif", np.ones((4608, 512), np.float32), tile=(512, 512), compression="zlib")
    assert is_slide(tmp_path / "f.tif")
    with Slide(tmp_path / "f.tif") as slide, pytest.raises(DataInvalidError, match="8-bit"):
        slide.region(0, 0, 64, 64)


def test_a_dicom_slide_without_a_series_is_a_slide_of_its_own(tmp_path: Path) -> None:
    file = dicom_slide(tmp_path / "series", np.zeros((256, 256, 3), np.uint8))
    data = pydicom.dcmread(file)
    del data.SeriesInstanceUID
    data.save_as(file)
    assert is_slide(file)
    assert slide_series(file) == str(file)


def test_a_pyramid_gives_an_overview_and_its_sharpest_pixels(tmp_path: Path) -> None:
    full = np.full((4096, 5120, 3), GLASS, np.uint8)
    full[1024:1124, 2048:2168] = PICTURE
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        for kind, level in enumerate((full, np.ascontiguousarray(full[::4, ::4]))):
            file.write(level, subfiletype=kind, tile=(256, 256), photometric="rgb", compression="zlib")
    with Slide(tmp_path / "p.tif") as slide:
        assert (slide.width, slide.height) == (5120, 4096)
        np.testing.assert_array_equal(slide.region(2048, 1024, 120, 100), PICTURE)
        seen = slide.overview()
    assert seen is not None
    assert seen[1] == pytest.approx(4.0)
    np.testing.assert_array_equal(seen[0], full[::4, ::4])


def test_what_is_huge_but_not_tiled_says_what_to_do(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "strips.tif", np.zeros((10_000, 10_000), np.uint8), compression="zlib", rowsperstrip=64)
    with pytest.raises(DataInvalidError, match="tiled TIFF"):
        Slide(tmp_path / "strips.tif")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_cut_slide_is_refused_or_says_so_at_the_missing_part(tmp_path: Path, share: float) -> None:
    marks = {(at, at): np.random.default_rng(at).integers(0, 255, (500, 500, 3), np.uint8) for at in (0, 512, 1536)}
    whole = tiled_tiff(tmp_path / "whole.tif", 2048, marks).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataInvalidError):
        _read_parts(cut)


def _read_parts(file: Path) -> None:
    with Slide(file) as slide:
        for at in (0, 512, 1536):
            slide.region(at, at, 500, 500)


def test_a_region_has_a_sane_size(tmp_path: Path) -> None:
    with Slide(tiled_tiff(tmp_path / "a.tif", 1024, {})) as slide, pytest.raises(ValueError, match="8192"):
        slide.region(0, 0, 100_000, 100_000)
