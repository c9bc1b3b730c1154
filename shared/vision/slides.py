"""Reads parts of images that are too large for memory: tiled TIFF and BigTIFF, vendors' slides, DICOM whole slides.

OpenSlide does the reading (tiles, pyramids, JPEG and JPEG 2000 inside); memory stays at its small tile cache and the
part asked for, whatever the size. Needs no torch. Of what a slide says about itself only its sizes are looked at.
"""

import math
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import DataInvalidError
from shared.vision.images import MAX_PIXELS, reads_in_bounds, size_of

Pixels = NDArray[np.uint8]

SUFFIXES: Final = frozenset({".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".tif", ".tiff", ".dcm"})
LARGE: Final = 4096
"""Side from which a TIFF is a slide rather than a field."""
LARGEST_REGION: Final = 8192
LARGEST_SIDE: Final = 400_000
"""Four times that of a whole slide at the highest magnification in use: more is a damaged file, or a bomb."""
_CACHE: Final = 16 * 1024 * 1024
_COARSEST: Final = 16.0
_OVERVIEW_PIXELS: Final = 16_000_000
_DICOM_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage (PS3.4)."""
_ROWS: Final = 512
_DAMAGED: Final = "The slide is damaged, not tiled, or of an unknown form; export it again as a tiled TIFF or DICOM."
_PART_DAMAGED: Final = "A part of the slide is damaged or has no 8-bit colours; export it again."


def is_slide(path: Path) -> bool:
    """Return whether ``path`` is to be read in parts: a slide's form, and not an ordinary field image in it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        return False
    if suffix == ".dcm":
        return _is_dicom_slide(path)
    if suffix in (".tif", ".tiff"):
        size = size_of(path)
        if size is None or size[0] * size[1] > MAX_PIXELS:
            return True
        # A large camera writes strips: too large a field for no one, and nothing that OpenSlide could read.
        return max(size) > LARGE and _is_tiled(path)
    return True


def _is_tiled(path: Path) -> bool:
    import openslide

    try:
        return openslide.OpenSlide.detect_format(str(path)) is not None
    except (openslide.OpenSlideError, OSError, ValueError):
        return False


def _is_dicom_slide(path: Path) -> bool:
    return _told(path, "SOPClassUID") == _DICOM_SLIDE


def _told(path: Path, name: str) -> str | None:
    """Return one element of a DICOM file's head; None where it is absent or the file is damaged."""
    import pydicom  # at use: few nodes have such files

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # they quote what stands in the file
            if not reads_in_bounds(file):
                return None
            value = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[name]).get(name)
    except Exception:  # noqa: BLE001 - a damaged file may raise nearly anything; reading it will say so
        return None
    return str(value) if value else None


def slide_series(path: Path) -> str:
    """Return what the files of one slide have in common: the series of a DICOM slide, else the file itself."""
    if path.suffix.lower() != ".dcm":
        return str(path)
    return _told(path, "SeriesInstanceUID") or str(path)


class Slide:
    """An open slide; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; of a DICOM series any file will do.

        Raises:
            DataInvalidError: it is no slide, damaged, or too large to be read whole and not tiled.
        """
        self._slide = _opened(path)
        self.width, self.height = (int(value) for value in self._slide.dimensions)
        tile = max(self._tile_side("width"), self._tile_side("height"))
        if max(self.width, self.height) > LARGEST_SIDE or tile > LARGEST_REGION:
            self._slide.close()
            raise DataInvalidError("The slide claims a size that no slide has; export it again as a tiled TIFF.")

    def _tile_side(self, side: str) -> int:
        text = self._slide.properties.get(f"openslide.level[0].tile-{side}")
        return int(text) if text else 0

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slide.close()

    @property
    def microns(self) -> float | None:
        """Micrometres a pixel, where the file says so."""
        text = self._slide.properties.get("openslide.mpp-x")
        try:
            value = float(text) if text else 0.0
        except ValueError:
            return None
        return value if math.isfinite(value) and value > 0 else None

    def region(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a part (height × width × RGB uint8) at full resolution; what lies outside or is absent is white.

        Raises:
            DataInvalidError: the part cannot be decoded.
            ValueError: it is empty or larger than `LARGEST_REGION`.
        """
        if not (0 < width <= LARGEST_REGION and 0 < height <= LARGEST_REGION):
            raise ValueError("a region has a side of 1 to 8192 pixels")
        return self._read((x, y), 0, (width, height))

    def overview(self) -> tuple[Pixels, float] | None:
        """Return the smallest level that still shows cells, and how many pixels one of its pixels stands for.

        None where the slide has no such level.
        """
        for level in range(self._slide.level_count - 1, 0, -1):
            width, height = self._slide.level_dimensions[level]
            scale = float(self._slide.level_downsamples[level])
            if scale <= _COARSEST and width * height <= _OVERVIEW_PIXELS:
                return self._read((0, 0), level, (width, height)), scale
        return None

    def _read(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        import openslide

        try:
            image = self._slide.read_region(place, level, size)
        except (openslide.OpenSlideError, OSError, ValueError, MemoryError) as error:
            raise DataInvalidError(_PART_DAMAGED) from error
        values = np.asarray(image)
        pixels = np.empty((*values.shape[:2], 3), np.uint8)
        for top in range(0, len(values), _ROWS):  # an overview is large, and these are its pixels in 16 bits
            part = values[top : top + _ROWS]
            alpha = part[..., 3:].astype(np.uint16)
            # Where the scanner took no picture the slide is transparent; colours are not premultiplied.
            pixels[top : top + _ROWS] = (part[..., :3] * alpha + 255 * (255 - alpha)) // 255
        return pixels


def _opened(path: Path) -> Any:  # Any: OpenSlide ships no types
    import openslide  # at use: loads a shared library, and few nodes have slides

    try:
        slide = openslide.OpenSlide(str(path))
    except openslide.OpenSlideUnsupportedFormatError as error:
        size = size_of(path)
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            raise DataInvalidError("The image is too large and not tiled; export it as a tiled TIFF.") from error
        raise DataInvalidError(_DAMAGED) from error
    except (openslide.OpenSlideError, OSError, ValueError) as error:
        raise DataInvalidError(_DAMAGED) from error
    slide.set_cache(openslide.OpenSlideCache(_CACHE))
    return slide
