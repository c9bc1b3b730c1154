"""Reads parts of images that are too large for memory: tiled TIFF and BigTIFF, vendors' slides, DICOM whole slides.

OpenSlide does the reading (tiles, pyramids, JPEG and JPEG 2000 inside); memory stays at its small tile cache and the
part asked for, whatever the size. Needs no torch. Of what a slide says about itself only its sizes are looked at.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import DataInvalidError
from shared.vision.images import MAX_PIXELS, size_of

Pixels = NDArray[np.uint8]

SUFFIXES: Final = frozenset({".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".tif", ".tiff", ".dcm"})
LARGE: Final = 4096
"""Side from which a TIFF is a slide rather than a field."""
LARGEST_REGION: Final = 8192
_CACHE: Final = 16 * 1024 * 1024
_COARSEST: Final = 16.0
_OVERVIEW_PIXELS: Final = 16_000_000
_DICOM_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage (PS3.4)."""
_DAMAGED: Final = "The slide is damaged or of an unknown form; export it again as a tiled TIFF or DICOM."


def is_slide(path: Path) -> bool:
    """Return whether ``path`` is to be read in parts: a slide's form, and not an ordinary field image in it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        return False
    if suffix == ".dcm":
        return _is_dicom_slide(path)
    if suffix in (".tif", ".tiff"):
        size = size_of(path)
        return size is None or max(size) > LARGE
    return True


def _is_dicom_slide(path: Path) -> bool:
    import pydicom  # at use: few nodes have such files

    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    except Exception:  # noqa: BLE001 - a damaged file may raise nearly anything; reading it will say so
        return False
    return bool(head.get("SOPClassUID") == _DICOM_SLIDE)


def slide_series(path: Path) -> str:
    """Return what the files of one slide have in common: the series of a DICOM slide, else the file itself."""
    if path.suffix.lower() != ".dcm":
        return str(path)
    import pydicom

    return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)


class Slide:
    """An open slide; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; of a DICOM series any file will do.

        Raises:
            DataInvalidError: it is no slide, damaged, or too large to be read whole and not tiled.
        """
        self._slide = _opened(path)
        self.width, self.height = (int(value) for value in self._slide.dimensions)

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
        return float(text) if text else None

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
            raise DataInvalidError("A part of the slide is damaged; export it again.") from error
        values = np.asarray(image)
        alpha = values[..., 3:].astype(np.uint16)
        # Where the scanner took no picture the slide is transparent; colours are not premultiplied.
        colours = (values[..., :3] * alpha + 255 * (255 - alpha)) // 255
        return np.ascontiguousarray(colours.astype(np.uint8))


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
