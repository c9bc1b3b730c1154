"""What training needs of every cell, kept on disk: the frozen trunk's maps of several views, or the crop itself.

One file for each cell, in a folder named by all that its content depends on. With cached maps a later round costs only
the tail; where the whole network learns there is nothing frozen to keep, and the crop saves reading the image.
"""

import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell
from client_node.training import augment
from shared.contracts.errors import DataInvalidError, NoSpaceError
from shared.vision import preprocessing
from shared.vision.images import load_image
from shared.vision.model import CellModel
from shared.vision.trunk import TrunkRunner

Maps = NDArray[np.float16]
Crops = NDArray[np.uint8]
Between = Callable[[], None]
"""Called between two batches: waits for urgent work, or raises to stop."""

_BATCH_PIXELS: Final = 8 * 128 * 128
"""What runs through the trunk at once: more would only cost memory."""
_MEMORY: Final = 256 * 1024 * 1024
_SPARE: Final = 100 * 1024 * 1024
_KEPT: Final = 2
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)


class _CellCache(ABC):
    """One array a cell, below a folder named by ``facts``."""

    def __init__(
        self, folder: Path, facts: tuple[object, ...], shape: tuple[int, ...], dtype: type[np.generic]
    ) -> None:
        self._folder = folder / sha256(repr(facts).encode()).hexdigest()[:24]
        self._shape = shape
        """Of one view."""
        self._dtype = np.dtype(dtype)

    @property
    def folder(self) -> Path:
        """Where the files of these facts lie."""
        return self._folder

    @property
    def map_values(self) -> int:
        """How many values one view has."""
        return int(np.prod(self._shape))

    @abstractmethod
    def _compute(self, cell: LabelledCell, views: int) -> NDArray[Any]:
        """Return views × shape; raises `DataInvalidError` if the cell's image cannot be read."""

    def _load(
        self, cells: Sequence[LabelledCell], views: int, *, between: Between
    ) -> tuple[list[LabelledCell], NDArray[Any]]:
        self._make_room(len(cells) * views)
        kept: list[LabelledCell] = []
        with _space_guard():
            arrays = self._array(len(cells), views)
            for cell in cells:
                try:
                    arrays[len(kept)] = self._cell(cell, views, between)
                except DataInvalidError as error:
                    log.warning("training.cell_skipped", cell=cell.hash, reason=error.message)
                    continue
                kept.append(cell)
        return kept, arrays[: len(kept)]

    def _array(self, count: int, views: int) -> NDArray[Any]:
        shape = (count, views, *self._shape)
        size = int(np.prod(shape)) * self._dtype.itemsize
        if size <= _MEMORY:
            return np.empty(shape, self._dtype)
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as the array
        # Claims the disk now: a write into a hole of a mapped file would end the process where the disk is full.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, self._dtype, "w+", shape=shape)

    def _cell(self, cell: LabelledCell, views: int, between: Between) -> NDArray[Any]:
        file = self._folder / cell.hash[:2] / f"{cell.hash}.npy"
        stored = self._stored(file)
        if stored is not None and len(stored) >= views:
            return stored[:views]
        between()
        arrays = self._compute(cell, views)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        try:
            with part.open("wb") as handle:
                np.save(handle, arrays)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return arrays

    def _stored(self, file: Path) -> NDArray[Any] | None:
        try:
            arrays: NDArray[Any] = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            log.warning("training.cache_damaged", file=file.name)
            return None
        sound = arrays.dtype == self._dtype and arrays.shape[1:] == self._shape
        return arrays if sound else None

    def _make_room(self, count: int) -> None:
        with _space_guard():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.touch()
            siblings = [folder for folder in self._folder.parent.iterdir() if folder.is_dir()]
            for old in sorted(siblings, key=lambda folder: folder.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
            needed = count * self.map_values * self._dtype.itemsize
            held = sum(1 for _ in self._folder.glob("*/*.npy"))
            if held == 0 and shutil.disk_usage(self._folder).free < needed + _SPARE:
                raise NoSpaceError(
                    f"Training needs {needed >> 20} MB of free disk space in the node's home; make room."
                )


class FeatureCache(_CellCache):
    """Maps of one trunk at one input size. View 0 is the cell as analysis sees it, the others are random looks that
    depend on the cell's hash and their number alone: not on how many are asked for.
    """

    def __init__(
        self,
        folder: Path,
        model: CellModel,
        *,
        base_sha256: str,
        size: int,
        strength: augment.Strength,
        trunk: Callable[[], TrunkRunner],
    ) -> None:
        self._model = model
        self._size = size
        self._strength = strength
        self._trunk = trunk  # made only where something has to be computed
        device = next(model.parameters()).device
        with torch.inference_mode():
            example = model.trunk(torch.zeros(1, 3, size, size, device=device))
        shape = tuple(example.shape[1:])
        # The shape does not tell the cut: every stage of a vision transformer has the same.
        network = (model.entry, base_sha256, len(model.trunk))
        looks = (size, strength, augment.SURROUND, augment.VERSION, preprocessing.VERSION)
        # A GPU rounds otherwise than a CPU: training shall not depend on where an earlier one ran.
        super().__init__(folder, ("maps", network, shape, looks, device.type), shape, np.float16)

    def load(self, cells: Sequence[LabelledCell], views: int, *, between: Between) -> tuple[list[LabelledCell], Maps]:
        """Return the cells that could be read, and their maps (N × views × C × H × W float16), computing what is new.

        Raises:
            NoSpaceError: the disk cannot hold the maps.
        """
        return self._load(cells, views, between=between)

    def _compute(self, cell: LabelledCell, views: int) -> Maps:
        entry, size = self._model.entry, self._size
        image = load_image(cell.path)
        plain = preprocessing.to_input(preprocessing.cell_crop(image, cell.box), size, entry.mean, entry.std)
        inputs = plain[None]
        if views > 1:
            mean, std = (np.asarray(value, np.float32).reshape(3, 1, 1) for value in (entry.mean, entry.std))
            inputs = np.concatenate([inputs, (self._looks(image, cell, views - 1) - mean) / std])
        trunk = self._trunk()
        step = max(1, _BATCH_PIXELS // size**2)
        return np.concatenate([trunk.run(inputs[k : k + step]) for k in range(0, views, step)])

    def _looks(self, image: preprocessing.Pixels, cell: LabelledCell, count: int) -> NDArray[np.float32]:
        """Return ``count`` random looks (× 3 × size × size in 0–1), each by a generator of its own."""
        wide = torch.from_numpy(_wide(image, cell, self._size)).permute(2, 0, 1)[None].float() / 255.0
        seed = int(cell.hash[:16], 16)
        randoms = (np.random.default_rng([seed, number]) for number in range(1, count + 1))
        return torch.cat([augment.looks(wide, self._size, self._strength, random) for random in randoms]).numpy()


class CropCache(_CellCache):
    """Crops `augment.SURROUND` times as wide as the network sees: ``size`` pixels of them are its input."""

    def __init__(self, folder: Path, *, size: int) -> None:
        self._size = size
        side = wide_side(size)
        super().__init__(folder, ("crops", size, augment.SURROUND, preprocessing.VERSION), (side, side, 3), np.uint8)

    def load(self, cells: Sequence[LabelledCell], *, between: Between) -> tuple[list[LabelledCell], Crops]:
        """Return the cells that could be read, and their crops (N × W × W × 3 uint8).

        Raises:
            NoSpaceError: the disk cannot hold them.
        """
        kept, crops = self._load(cells, 1, between=between)
        return kept, crops[:, 0]

    def _compute(self, cell: LabelledCell, views: int) -> Crops:  # noqa: ARG002 - a crop has one view
        return _wide(load_image(cell.path), cell, self._size)[None]


def wide_side(size: int) -> int:
    """Return the side of a crop whose middle ``size`` pixels the network sees."""
    return round(size * augment.SURROUND)


def _wide(image: preprocessing.Pixels, cell: LabelledCell, size: int) -> Crops:
    crop = preprocessing.cell_crop(image, cell.box, surround=augment.SURROUND)
    return np.array(preprocessing.scale(crop, wide_side(size)))  # torch wants its own, writable memory


@contextmanager
def _space_guard() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError("The disk of the node's home is full; make room and try again.") from error
        raise
