"""The frozen trunk's maps of every cell, several views each, kept on disk: a later round costs only the tail.

One file for each cell, in a folder named by all that the maps depend on. View 0 is the cell as analysis sees it, the
others are random looks that depend on the cell's hash alone.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from client_node.datasets.catalogue import LabelledCell
from client_node.training import augment
from shared.contracts.errors import DataInvalidError, NoSpaceError
from shared.vision import preprocessing
from shared.vision.model import CellModel
from shared.vision.trunk import Trunk

Maps = NDArray[np.float16]
Between = Callable[[], None]
"""Called between two batches: waits for urgent work, or raises to stop."""

_BATCH_PIXELS: Final = 8 * 128 * 128
"""What runs through the trunk at once: more would only cost memory."""
_MEMORY: Final = 256 * 1024 * 1024
_SPARE: Final = 100 * 1024 * 1024
_KEPT: Final = 2
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)


class FeatureCache:
    """Maps of one trunk at one input size, below ``folder``."""

    def __init__(
        self,
        folder: Path,
        model: CellModel,
        *,
        base_sha256: str,
        size: int,
        trunk: Callable[[], Trunk],
    ) -> None:
        self._model = model
        self._size = size
        self._trunk = trunk  # made only where something has to be computed
        facts = (base_sha256, size, augment.VERSION, preprocessing.VERSION)
        self._folder = folder / sha256(repr(facts).encode()).hexdigest()[:24]
        with torch.inference_mode():
            example = model.trunk(torch.zeros(1, 3, size, size))
        self._shape = tuple(example.shape[1:])

    @property
    def map_values(self) -> int:
        """How many values one map has."""
        return int(np.prod(self._shape))

    def load(self, cells: Sequence[LabelledCell], views: int, *, between: Between) -> tuple[list[LabelledCell], Maps]:
        """Return the cells that could be read, and their maps (N × views × C × H × W float16), computing what is new.

        Raises:
            NoSpaceError: the disk cannot hold the maps.
        """
        self._make_room(len(cells) * views)
        kept: list[LabelledCell] = []
        with _space_guard():
            maps = self._array(len(cells), views)
            for cell in cells:
                try:
                    maps[len(kept)] = self._cell(cell, views, between)
                except DataInvalidError as error:
                    log.warning("training.cell_skipped", cell=cell.hash, reason=error.message)
                    continue
                kept.append(cell)
        return kept, maps[: len(kept)]

    def _array(self, count: int, views: int) -> Maps:
        shape = (count, views, *self._shape)
        if int(np.prod(shape)) * 2 <= _MEMORY:
            return np.empty(shape, np.float16)
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as the array
        # Claims the disk now: a write into a hole of a mapped file would end the process where the disk is full.
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 2)
        return np.memmap(file, np.float16, "w+", shape=shape)

    def _cell(self, cell: LabelledCell, views: int, between: Between) -> Maps:
        file = self._folder / cell.hash[:2] / f"{cell.hash}.npy"
        stored = self._stored(file)
        if stored is not None and len(stored) >= views:
            return stored[:views]
        between()
        maps = self._compute(cell, views)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        try:
            with part.open("wb") as handle:
                np.save(handle, maps)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return maps

    def _stored(self, file: Path) -> Maps | None:
        try:
            maps: Maps = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            log.warning("training.cache_damaged", file=file.name)
            return None
        sound = maps.dtype == np.float16 and maps.ndim == 4 and maps.shape[1:] == self._shape
        return maps if sound else None

    def _compute(self, cell: LabelledCell, views: int) -> Maps:
        crop = preprocessing.cell_crop(preprocessing.load_image(cell.path), cell.box)
        random = np.random.default_rng(int(cell.hash[:16], 16))
        looks = [crop, *(augment.view(crop, self._size, random) for _ in range(views - 1))]
        entry = self._model.entry
        inputs = np.stack([preprocessing.to_input(look, self._size, entry.mean, entry.std) for look in looks])
        trunk = self._trunk()
        step = max(1, _BATCH_PIXELS // self._size**2)
        return np.concatenate([trunk.run(inputs[k : k + step]) for k in range(0, views, step)])

    def _make_room(self, count: int) -> None:
        with _space_guard():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.touch()
            siblings = [folder for folder in self._folder.parent.iterdir() if folder.is_dir()]
            for old in sorted(siblings, key=lambda folder: folder.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
            needed = count * self.map_values * 2
            held = sum(1 for _ in self._folder.glob("*/*.npy"))
            if held == 0 and shutil.disk_usage(self._folder).free < needed + _SPARE:
                raise NoSpaceError(
                    f"Training needs {needed >> 20} MB of free disk space in the node's home; make room."
                )


@contextmanager
def _space_guard() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError("The disk of the node's home is full; make room and try again.") from error
        raise
