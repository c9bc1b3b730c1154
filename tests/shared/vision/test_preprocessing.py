"""What reading and cropping must hold to."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.contracts.errors import DataInvalidError
from shared.vision.images import load_image
from shared.vision.preprocessing import cell_crop, to_input


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_load_image_of_any_mode_gives_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 0x8000, np.uint16))
    else:
        image = Image.new("RGB", (30, 20), (128, 128, 128)).convert(mode)
    pixels = load_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8


def test_load_image_with_transparency_is_laid_on_white() -> None:
    pixels = load_image(encoded(Image.new("RGBA", (10, 10), (0, 0, 0, 0))))
    assert np.array_equal(np.unique(pixels), [255])


def test_load_image_16_bit_keeps_its_high_byte() -> None:
    pixels = load_image(encoded(Image.fromarray(np.full((10, 10), 0x80FF, np.uint16))))
    assert np.array_equal(np.unique(pixels), [0x80])


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "known format"),
        (b"not an image at all", "known format"),
        (b"GIF89a" + bytes(100), "known format"),
        (encoded(noise(), "JPEG")[:900], "truncated"),
        (encoded(noise())[:900], "truncated"),
        (encoded(Image.new("RGB", (3, 3))), "smaller"),
    ],
)
def test_load_image_refuses_bad_data(data: bytes, word: str) -> None:
    with pytest.raises(DataInvalidError, match=word):
        load_image(data)


def test_load_image_refuses_a_bomb() -> None:
    with pytest.raises(DataInvalidError, match="more pixels"):
        load_image(encoded(Image.new("1", (20_000, 20_000))))


def test_load_image_missing_file_has_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataInvalidError, match="check that it exists"):
        load_image(tmp_path / "none.png")


def test_cell_crop_without_box_keeps_the_centre() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[50, 60] = 255
    crop = cell_crop(image, None)
    assert crop.shape == (72, 72, 3)
    assert crop[36, 36].tolist() == [255, 255, 255]
    assert cell_crop(image, None, surround=1.25).shape == (90, 90, 3)


def test_cell_crop_with_box_is_square_and_wider() -> None:
    crop = cell_crop(np.zeros((480, 640, 3), np.uint8), (100, 100, 200, 150))
    assert crop.shape == (124, 124, 3)


def test_cell_crop_at_the_edge_repeats_the_edge() -> None:
    image = np.full((50, 50, 3), 100, np.uint8)
    image[:, 0] = 190
    crop = cell_crop(image, (0, 10, 20, 30))
    assert crop.shape == (25, 25, 3)
    assert np.array_equal(crop[:, 0], crop[:, 1])
    assert crop[0, 0, 0] > crop[0, 4, 0]


def test_cell_crop_is_white_balanced_by_the_whole_image() -> None:
    image = np.full((100, 100, 3), (200, 220, 180), np.uint8)
    image[40:60, 40:60] = (100, 60, 120)
    crop = cell_crop(image, (35, 35, 65, 65))
    assert crop[0, 0].tolist() == [235, 235, 235]
    assert crop[20, 20].tolist() == [118, 64, 157]


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (60, 0, 70, 10), (-9, -9, 0, 0), (0, 0, 10_000, 10)])
def test_cell_crop_refuses_a_senseless_box(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataInvalidError, match="correct the label file"):
        cell_crop(np.zeros((50, 50, 3), np.uint8), box)


def test_to_input_is_normalised_channels_first() -> None:
    crop = np.zeros((40, 40, 3), np.uint8)
    crop[..., 2] = 255
    tensor = to_input(crop, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == np.float32
    assert tensor[:, 0, 0].tolist() == [-1.0, -1.0, 1.0]


def test_preprocessing_needs_no_torch() -> None:
    code = "import sys, shared.vision.preprocessing, client_node.ipc; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
