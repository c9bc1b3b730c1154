"""Reading files of any kind: pixels, or one clear sentence."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

from shared.contracts.errors import DataInvalidError
from shared.vision.images import load_image, size_of
from shared.vision.slides import is_slide

VL_MICROSCOPIC = UID("1.2.840.10008.5.1.4.1.1.77.1.2")
PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)  # type: ignore[arg-type]  # options of the writer
    return buffer.getvalue()


def dicom(values: NDArray[np.generic], *, jpeg: bool = False, **change: object) -> bytes:
    """A visible-light image of one frame, of a patient whose name must never be seen."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = VL_MICROSCOPIC
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = "Secret^Person", "4711"
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 3 if values.ndim == 3 else 1
    data.PhotometricInterpretation = ("YBR_FULL_422" if jpeg else "RGB") if values.ndim == 3 else "MONOCHROME2"
    data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = values.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
    if jpeg:
        data.PixelData = encapsulate([encoded(Image.fromarray(values), "JPEG", quality=95)])
    else:
        data.PixelData = values.tobytes()
    for name, value in change.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"bigtiff": True}])
def test_tiff_of_any_layout_gives_its_pixels(options: dict[str, object]) -> None:
    np.testing.assert_array_equal(load_image(tiff(PIXELS, photometric="rgb", **options)), PIXELS)


def test_16_bit_colour_keeps_its_high_byte() -> None:
    deep = PIXELS.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(load_image(tiff(deep, photometric="rgb")), PIXELS)


def test_several_frames_give_the_first() -> None:
    stack = np.stack([PIXELS, 255 - PIXELS])
    np.testing.assert_array_equal(load_image(tiff(stack, photometric="rgb")), PIXELS)


def test_dicom_gives_its_pixels_and_size(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load_image(dicom(PIXELS)), PIXELS)
    lossy = load_image(dicom(PIXELS // 8 + 100, jpeg=True))
    assert np.abs(lossy.astype(int) - (PIXELS // 8 + 100)).mean() < 12
    (tmp_path / "a.dcm").write_bytes(dicom(PIXELS))
    assert size_of(tmp_path / "a.dcm") == (60, 40)


def test_dicom_grey_of_12_bits_is_reduced() -> None:
    grey = np.full((20, 30), 0x0ABC, np.uint16)
    pixels = load_image(dicom(grey, BitsStored=12, HighBit=11))
    assert pixels.shape == (20, 30, 3)
    assert np.array_equal(np.unique(pixels), [0xAB])


@pytest.mark.parametrize("bits", [8, 16])
def test_dicom_with_a_palette_has_its_colours(bits: int) -> None:
    numbers = np.arange(2, dtype=np.uint8).repeat(200).reshape(20, 20)
    data = pydicom.dcmread(io.BytesIO(dicom(numbers, PhotometricInterpretation="PALETTE COLOR")))
    shift = bits - 8
    for name, values in {"Red": (200, 10), "Green": (20, 30), "Blue": (90, 250)}.items():
        entries = np.array([value << shift for value in values], np.uint16 if bits == 16 else np.uint8)
        data.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [2, 0, bits])
        data.add_new(f"{name}PaletteColorLookupTableData", "OW", entries.tobytes())
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    pixels = load_image(buffer.getvalue())
    assert [pixels[0, 0].tolist(), pixels[19, 19].tolist()] == [[200, 20, 90], [10, 30, 250]]


def test_a_deflated_dicom_is_never_inflated(tmp_path: Path) -> None:
    data = pydicom.dcmread(io.BytesIO(dicom(PIXELS)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.PixelData += bytes(32 * 2**20)
    data.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    tracemalloc.start()
    with pytest.raises(DataInvalidError, match="deflated"):
        load_image(tmp_path / "bomb.dcm")
    assert size_of(tmp_path / "bomb.dcm") is None
    assert not is_slide(tmp_path / "bomb.dcm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_no_error_about_a_dicom_file_names_its_patient() -> None:
    whole = dicom(PIXELS)
    for cut in range(0, len(whole), 97):
        with pytest.raises(DataInvalidError) as caught:
            load_image(whole[:cut])
        assert "Secret" not in caught.value.message
        assert "4711" not in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_cut_anywhere_is_read_whole_or_refused(kind: str) -> None:
    whole = encoded(Image.fromarray(PIXELS), kind)
    for cut in range(0, len(whole), max(1, len(whole) // 60)):
        try:
            pixels = load_image(whole[:cut])
        except DataInvalidError:
            continue
        assert pixels.shape == (40, 60, 3)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    parts = {b"IHDR": struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(1000))}
    chunks = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
              for name, body in parts.items()]  # fmt: skip
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    with pytest.raises(DataInvalidError, match="more pixels"):
        load_image(data)
    with pytest.raises(DataInvalidError, match="more pixels"):
        load_image(dicom(PIXELS, Rows=60_000, Columns=60_000))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (tiff(np.ones((20, 20), np.float32)), "32-bit"),
        (tiff(np.ones((20, 20), np.uint32)), "32-bit|damaged"),
        (tiff(np.ones((1, 1, 3), np.uint8), photometric="rgb"), "smaller"),
        (dicom(np.ones((20, 20), np.uint32)), "16 bits"),
        (dicom(PIXELS)[:132] + bytes(40), "damaged|no image"),
    ],
)
def test_what_cannot_be_shown_says_why(data: bytes, word: str) -> None:
    with pytest.raises(DataInvalidError, match=word):
        load_image(data)
