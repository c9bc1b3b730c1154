"""The frozen trunk under ONNX Runtime: two to four times as fast as eager torch on a CPU."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.vision.engine import cpu_session
from shared.vision.export import trace
from shared.vision.model import CellModel


class Trunk:
    """Maps of normalised images. Making one takes about two seconds."""

    def __init__(self, model: CellModel, size: int) -> None:
        with tempfile.TemporaryDirectory(prefix="hematovision-trunk-") as folder:
            file = Path(folder) / "trunk.onnx"
            trace(model.trunk, size, file, ("maps",))
            self._session = cpu_session(file)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return the maps (N × C × H × W) of images (N × 3 × S × S)."""
        maps: NDArray[np.float32] = self._session.run(["maps"], {"images": images})[0]
        return maps.astype(np.float16)
