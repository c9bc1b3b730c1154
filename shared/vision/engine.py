"""Runs a model version on images: ONNX Runtime where the exported file is there, torch otherwise."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import DependencyMissingError, ModelInvalidError
from shared.contracts.training import Recipe

Arrays = NDArray[np.float32]

ONNX_FILE = "model.onnx"
DELTA_FILE = "delta.safetensors"


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
        """``onnxruntime`` or ``torch``; stands in every analysis."""

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs of normalised images (N × 3 × S × S float32)."""


def cpu_session(file: Path) -> Any:  # Any: ONNX Runtime ships no types
    """Return an ONNX Runtime session of ``file`` on OMP_NUM_THREADS threads (all cores if unset).

    Raises `DependencyMissingError` without the runtime, `ModelInvalidError` if the file cannot be loaded.
    """
    try:
        import onnxruntime  # at use: the torch engine does without it
    except ImportError as error:
        raise DependencyMissingError(
            "onnxruntime is not installed; install hematovision with its `node` extra."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    options.log_severity_level = 3
    # Its arena keeps the largest batch's memory for good; a resident analyser mostly waits.
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own error classes have no common base
        raise ModelInvalidError("The model file cannot be loaded; install the model again.") from error


class OnnxEngine:
    """ONNX Runtime on the CPU: needs no torch and is the faster one."""

    name = "onnxruntime"

    def __init__(self, file: Path, classes: int) -> None:
        self._session = cpu_session(file)
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        if set(outputs) != set(Outputs._fields) or outputs["logits"][-1] != classes:
            raise ModelInvalidError("The model file does not fit its card; install the model again.")

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs; see `Engine`."""
        return Outputs(*self._session.run(list(Outputs._fields), {"images": batch}))


def load_engine(model_dir: Path, recipe: Recipe) -> Engine:
    """Load the model in ``model_dir``: its ONNX file, or else base weights and ``delta.safetensors`` with torch.

    Raises `ModelInvalidError` if neither file is there, or it is damaged or does not fit the recipe.
    """
    if (model_dir / ONNX_FILE).is_file():
        return OnnxEngine(model_dir / ONNX_FILE, len(recipe.classes))
    if (model_dir / DELTA_FILE).is_file():
        from shared.vision.torch_engine import TorchEngine  # at use: an ONNX node has no torch

        return TorchEngine(model_dir / DELTA_FILE, recipe)
    raise ModelInvalidError("The model folder holds neither model.onnx nor delta.safetensors; install it again.")
