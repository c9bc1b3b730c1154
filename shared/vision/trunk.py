"""The frozen trunk: under ONNX Runtime on a CPU, where that is two to four times as fast as eager torch."""

import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shared.vision.device import laid
from shared.vision.engine import cpu_session
from shared.vision.export import trace
from shared.vision.model import CellModel


class TrunkRunner(Protocol):
    """Runs a model's trunk."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return the maps (N × C × H × W) of normalised images (N × 3 × S × S)."""


class Trunk:
    """On the CPU. Making one takes about two seconds."""

    def __init__(self, model: CellModel, size: int) -> None:
        with tempfile.TemporaryDirectory(prefix="hematovision-trunk-") as folder:
            file = Path(folder) / "trunk.onnx"
            trace(model.trunk, size, file, ("maps",))
            self._session = cpu_session(file)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float16]:
        """See `TrunkRunner`."""
        maps: NDArray[np.float32] = self._session.run(["maps"], {"images": images})[0]
        return maps.astype(np.float16)


class TorchTrunk:
    """Where the model lies. In whole precision: the maps are computed once, and then learnt from for many rounds."""

    def __init__(self, model: CellModel) -> None:
        self._model = model

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float16]:
        """See `TrunkRunner`."""
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            maps: torch.Tensor = self._model.trunk(laid(torch.from_numpy(images), device))
            return maps.half().cpu().contiguous().numpy()


def trunk_runner(model: CellModel, size: int) -> TrunkRunner:
    """Return the quicker of the two for where the model lies."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return Trunk(model, size) if on_cpu else TorchTrunk(model)
