"""Runs a model version on images: ONNX Runtime where the exported file is there, torch otherwise."""

from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision.device import CPU, CUDA, cpu_session, on_cpu, session
from shared.vision.precision import INT8_FILE, ONNX_FILE, Precision, precision_of

__all__ = ["DELTA_FILE", "ONNX_FILE", "Arrays", "Engine", "OnnxEngine", "Outputs", "cpu_session", "load_engine"]

Arrays = NDArray[np.float32]

DELTA_FILE: Final = "delta.safetensors"
CPU_BATCH: Final = 8
"""Images at once on a CPU: their maps still lie in its caches. With 32, each image took half as long again."""
GPU_BATCH: Final = 64


class Outputs(NamedTuple):
    """What a model says of N images."""

    logits: Arrays
    """N × K, in the order of the recipe's classes."""
    features: Arrays
    """N × F, pooled."""
    objects: Arrays
    """N × `finder.OUTPUTS`: whether it is a cell, and where; see `shared.vision.finder`."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """``onnxruntime``, ``onnxruntime-int8`` or ``torch``, on a GPU with ``-cuda``; stands in every analysis."""

    @property
    def batch(self) -> int:
        """How many images at once are quickest."""

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs of normalised images (N × 3 × S × S float32)."""


class OnnxEngine:
    """ONNX Runtime: needs no torch and is the faster one."""

    def __init__(self, file: Path, classes: int, *, device: str | None = None) -> None:
        """Load ``file``; ``device`` overrides the site's setting, see `shared.vision.device`."""
        self._session = session(file, asked=device)
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        if set(outputs) != set(Outputs._fields) or outputs["logits"][-1] != classes:
            raise ModelInvalidError("The model file does not fit its card; install the model again.")
        first = self._session.get_providers()[0]
        self.batch = CPU_BATCH if first == CPU else GPU_BATCH
        device_name = {CPU: "", CUDA: "-cuda"}.get(first, f"-{first.removesuffix('ExecutionProvider').lower()}")
        self.name = f"onnxruntime{'-int8' if file.name == INT8_FILE else ''}{device_name}"

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs; see `Engine`."""
        return Outputs(*self._session.run(list(Outputs._fields), {"images": batch}))


def load_engine(model_dir: Path, recipe: Recipe, *, precision: Precision | None = None) -> Engine:
    """Load the model in ``model_dir``: its ONNX file, or else base weights and ``delta.safetensors`` with torch.

    The site's INT8 form runs where the site has one in use (`shared.vision.precision`) and a CPU does the work; a GPU
    is faster with the fp32 file. ``precision`` overrides that.

    Raises `ModelInvalidError` if neither file is there, or it is damaged or does not fit the recipe.
    """
    classes = len(recipe.classes)
    if (model_dir / ONNX_FILE).is_file():
        if precision is None:
            precision = precision_of(model_dir) if on_cpu() else Precision.FP32
        if precision is Precision.INT8:
            return OnnxEngine(model_dir / INT8_FILE, classes, device="cpu")
        return OnnxEngine(model_dir / ONNX_FILE, classes)
    if (model_dir / DELTA_FILE).is_file():
        from shared.vision.torch_engine import TorchEngine  # at use: an ONNX node has no torch

        return TorchEngine(model_dir / DELTA_FILE, recipe)
    raise ModelInvalidError("The model folder holds neither model.onnx nor delta.safetensors; install it again.")
