"""Slides for tests: a tiled TIFF written tile by tile, and a DICOM whole slide of two files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

Pixels = NDArray[np.uint8]
GLASS = 235
_SLIDE = UID("1.2.840.10008.5.1.4.1.1.77.1.6")


def tiled_tiff(path: Path, side: int, marks: dict[tuple[int, int], Pixels], *, tile: int = 512) -> Path:
    """Write glass of ``side`` × ``side`` pixels with pictures pasted at places (x, y); a picture lies in one tile."""
    across = -(-side // tile)

    def made() -> Iterator[Pixels]:
        glass = np.full((tile, tile, 3), GLASS, np.uint8)
        for number in range(across * across):
            x, y = number % across * tile, number // across * tile
            here = {at: picture for at, picture in marks.items() if x <= at[0] < x + tile and y <= at[1] < y + tile}
            canvas = glass.copy() if here else glass
            for (left, top), picture in here.items():
                height, width = picture.shape[:2]
                canvas[top - y : top - y + height, left - x : left - x + width] = picture
            yield canvas

    tifffile.imwrite(
        path, made(), shape=(side, side, 3), dtype="uint8", tile=(tile, tile), photometric="rgb", compression="zlib"
    )
    return path


def dicom_slide(folder: Path, image: Pixels, *, tile: int = 256) -> Path:
    """Write ``image`` (its sides multiples of ``tile``) as a tiled DICOM slide; return its one file."""
    height, width = image.shape[:2]
    frames = [
        image[y : y + tile, x : x + tile].tobytes() for y in range(0, height, tile) for x in range(0, width, tile)
    ]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = _SLIDE
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = "Secret^Person", "4711"
    data.Modality = "SM"
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.FrameOfReferenceUID = generate_uid()
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType = "TILED_FULL"
    data.Rows = data.Columns = tile
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = height, width
    data.TotalPixelMatrixFocalPlanes = 1
    data.NumberOfOpticalPaths = 1
    data.NumberOfFrames = len(frames)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.00025, 0.00025], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = "0"
    data.TotalPixelMatrixOriginSequence = Sequence([origin])
    data.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    data.OpticalPathSequence = Sequence([path])
    data.PixelData = b"".join(frames)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "level0.dcm"
    data.save_as(file, enforce_file_format=True)
    return file
