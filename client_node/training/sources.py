"""Where the batches of a training step come from: cached maps of a frozen trunk, or the crops themselves."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client_node.training import augment
from client_node.training.cache import Crops, Maps
from shared.vision.device import laid
from shared.vision.model import CellModel


class Source(Protocol):
    """The cells of a site as what goes into `CellModel.features`."""

    def __len__(self) -> int:
        """How many cells."""

    def draw(self, chosen: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """Return random looks at the chosen cells."""

    def plain(self, start: int, stop: int) -> Tensor:
        """Return cells ``start`` … ``stop`` - 1 as analysis sees them."""


class MapSource:
    """Maps of K looks at each cell (N × K × C × H × W float16, look 0 the plain one), turned and mirrored at random."""

    def __init__(self, maps: Maps, device: torch.device | None = None) -> None:
        self._maps = maps
        self._device = device or torch.device("cpu")

    def __len__(self) -> int:
        return len(self._maps)

    def draw(self, chosen: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """See `Source`; the whole batch is turned alike."""
        seen = random.integers(0, self._maps.shape[1], len(chosen))
        batch = torch.from_numpy(self._maps[chosen, seen]).to(self._device).float()
        return laid(_turned(batch, int(random.integers(0, 8))), self._device)

    def plain(self, start: int, stop: int) -> Tensor:
        """See `Source`."""
        return laid(torch.from_numpy(np.ascontiguousarray(self._maps[start:stop, 0])).float(), self._device)


class CropSource:
    """Crops (N × W × W × 3 uint8, `augment.SURROUND` times too wide), looked at anew each time: nothing is frozen."""

    def __init__(self, crops: Crops, model: CellModel, size: int, strength: augment.Strength) -> None:
        self._crops = crops
        self._size = size
        self._strength = strength
        self._device = next(model.parameters()).device
        self._mean = torch.tensor(model.entry.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(model.entry.std, device=self._device).view(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self._crops)

    def draw(self, chosen: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """See `Source`."""
        return self._normalised(augment.looks(self._pixels(self._crops[chosen]), self._size, self._strength, random))

    def plain(self, start: int, stop: int) -> Tensor:
        """See `Source`; cut from the wider crop, so that single values differ a little from `cell_crop`'s."""
        return self._normalised(augment.centre(self._pixels(self._crops[start:stop]), self._size))

    def _pixels(self, crops: Crops) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        return pixels.permute(0, 3, 1, 2).float() / 255.0

    def _normalised(self, pixels: Tensor) -> Tensor:
        return ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def _turned(maps: Tensor, which: int) -> Tensor:
    """Return one of the eight symmetries of the square."""
    if which & 1:
        maps = maps.flip(2)
    if which & 2:
        maps = maps.flip(3)
    return maps.transpose(2, 3) if which & 4 else maps
