"""Reads an image file into pixels: JPEG, PNG, BMP, TIFF, WebP and DICOM, whatever its mode and depth.

Whole files that fit into memory; what is larger is a slide (`shared.vision.slides`). Needs no torch. Nothing of a file
but its pixels is ever looked at or told: a DICOM file names its patient.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shared.contracts.errors import DataInvalidError

Pixels = NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})
MAX_BYTES: Final = 256 * 1024 * 1024
MAX_PIXELS: Final = 89_000_000
"""Just below Pillow's own warning level: a field image has 0.3 to 20 million."""
MIN_SIDE: Final = 8
_DICOM: Final = b"DICM"
_PREAMBLE: Final = 128
_META: Final = 0x0002
"""Group of a DICOM file's own elements, before those of the image (PS3.10)."""
_TOO_LARGE: Final = "The image has more pixels than any field image; export single fields, or a tiled slide."
_DAMAGED: Final = "The image is truncated or damaged; export it again."


def load_image(source: Path | str | bytes) -> Pixels:
    """Return an image as uint8 height × width × RGB, its pixels as stored (boxes refer to stored pixels).

    The first frame of several counts; transparency is laid on white; 16-bit channels are reduced to their high byte,
    as they are stored. Raises `DataInvalidError` for anything that is not a whole image of a known format and sane
    size.
    """
    data = source if isinstance(source, bytes) else _bytes(Path(source))
    if is_dicom(data):
        return _dicom(data)
    with _our_errors(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(image.width, image.height)
        image.load()
        return np.asarray(_to_rgb(image))


def size_of(path: Path) -> tuple[int, int] | None:
    """Return (width, height) as the file's head says, without decoding it; None where it says nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:
                if is_dicom(file.read(_PREAMBLE + len(_DICOM))):
                    return _dicom_size(path)
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Exception:  # noqa: BLE001 - a damaged head may raise nearly anything; reading the file will say so
        return None


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins so is DICOM (PS3.10)."""
    return head[_PREAMBLE : _PREAMBLE + len(_DICOM)] == _DICOM


def check_size(width: int, height: int) -> None:
    """Raise `DataInvalidError` for a size that no field or cell image has."""
    if width * height > MAX_PIXELS:
        raise DataInvalidError(_TOO_LARGE)
    if min(width, height) < MIN_SIDE:
        raise DataInvalidError(f"The image is smaller than {MIN_SIDE} pixels; export whole cells or fields.")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataInvalidError(f"The image file is larger than {MAX_BYTES >> 20} MiB; export single fields.")
        return path.read_bytes()
    except OSError as error:
        raise DataInvalidError("The image file cannot be read; check that it exists and is readable.") from error


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataInvalidError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataInvalidError(_TOO_LARGE) from error
    except UnidentifiedImageError as error:
        raise DataInvalidError("The file is not an image of a known format (JPEG, PNG, TIFF, BMP, WebP).") from error
    # A decoder raises whatever its parser trips over (struct.error, IndexError, KeyError, …): the file is damaged.
    except Exception as error:
        raise DataInvalidError(_DAMAGED) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataInvalidError("The image has 32-bit pixels; export it with 8 bits per channel.")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        flat = Image.new("RGBA", image.size, (255, 255, 255, 255))
        flat.alpha_composite(image.convert("RGBA"))
        return flat.convert("RGB")
    return image.convert("RGB")


def _dicom(data: bytes) -> Pixels:
    """Decode the first frame of a DICOM image (visible light or secondary capture)."""
    import pydicom  # at use: few images need it
    from pydicom.pixels.utils import pixel_array

    with _our_errors():
        if not reads_in_bounds(io.BytesIO(data)):
            raise DataInvalidError("The DICOM file is deflated as a whole; export it with another transfer syntax.")
        dataset = pydicom.dcmread(io.BytesIO(data), force=False)
        if "PixelData" not in dataset:
            raise DataInvalidError("The DICOM file holds no image.")
        check_size(int(dataset.Columns), int(dataset.Rows))
        if int(dataset.get("BitsAllocated", 8)) not in (8, 16):
            raise DataInvalidError("The DICOM image has more than 16 bits a channel; export it with 8.")
        pixels = pixel_array(dataset, index=0)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _from_palette(pixels, dataset)
        shift = int(dataset.get("BitsStored", 8)) - 8
        if shift > 0:
            pixels = pixels >> shift
        grey = pixels.ndim == 2
        if grey and dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max(initial=255) - pixels
        colours = np.repeat(pixels[..., None], 3, axis=2) if grey else pixels[..., :3]
        return np.ascontiguousarray(np.clip(colours, 0, 255).astype(np.uint8))


def _from_palette(numbers: NDArray[Any], dataset: Any) -> Pixels:  # Any: pydicom's elements are made at run time
    from pydicom.pixels.processing import apply_color_lut

    colours = apply_color_lut(numbers, dataset)[..., :3]
    return np.ascontiguousarray((colours >> 8 if colours.dtype.itemsize > 1 else colours).astype(np.uint8))


def reads_in_bounds(file: BinaryIO) -> bool:
    """Return whether reading the head of a DICOM file takes little memory; ``file`` stands at its begin.

    A deflated one is inflated whole to read any part of it: 256 MiB may become 256 GiB.
    """
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file.seek(_PREAMBLE + len(_DICOM))
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != _META)
    return bool(meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian)


def _dicom_size(path: Path) -> tuple[int, int]:
    import pydicom

    with path.open("rb") as file:
        if not reads_in_bounds(file):
            raise DataInvalidError(_DAMAGED)
    head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(head.Columns), int(head.Rows)
