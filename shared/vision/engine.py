"""Runs a model version on images: ONNX Runtime by default, torch where that cannot."""

from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from shared.contracts.errors import DependencyMissingError, HematovisionError, ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision.device import CPU, CUDA, cpu_session, on_cpu, session
from shared.vision.precision import (
    DELTA_FILE,
    INT8_FILE,
    ONNX_FILE,
    OWN_ONNX_FILE,
    Precision,
    delta_file,
    precision_of,
    whole_file,
)

__all__ = ["DELTA_FILE", "ONNX_FILE", "Arrays", "Engine", "OnnxEngine", "Outputs", "cpu_session", "load_engine"]

Arrays = NDArray[np.float32]

CPU_BATCH: Final = 8
"""Images at once on a CPU: their maps still lie in its caches. With 32, each image took half as long again."""
GPU_BATCH: Final = 64

log = structlog.get_logger(__name__)


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
        """``onnxruntime``, with ``-own`` normalisation or ``-int8``, or ``torch``; on a GPU with ``-cuda``.

        It stands in every analysis.
        """

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
        form = {INT8_FILE: "-int8", OWN_ONNX_FILE: "-own"}.get(file.name, "")
        self.name = f"onnxruntime{form}{device_name}"

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs; see `Engine`."""
        return Outputs(*self._session.run(list(Outputs._fields), {"images": batch}))


def load_engine(model_dir: Path, recipe: Recipe, *, precision: Precision | None = None, own: bool = True) -> Engine:
    """Load the model in ``model_dir``: its ONNX file, or else base weights and ``delta.safetensors`` with torch.

    Torch steps in where there is no ONNX file, and, with a line in the log that says why, where the runtime is not
    installed or cannot load the file.

    Both are those with the site's own normalisation where it keeps one, unless ``own`` is false. The site's INT8 form
    runs where the site has one in use (`shared.vision.precision`) and a CPU does the work; a GPU is faster with the
    fp32 file. ``precision`` overrides that.

    Raises:
        ModelInvalidError: neither file is there, or what is there is damaged or does not fit the recipe.
        DependencyMissingError, WeightsMissingError: what is there needs a package or weights that are not.
    """
    delta = delta_file(model_dir) if own else model_dir / DELTA_FILE
    if not (model_dir / ONNX_FILE).is_file():
        if delta.is_file():
            return _torch(delta, recipe)
        raise ModelInvalidError("The model folder holds neither model.onnx nor delta.safetensors; install it again.")
    try:
        return _onnx(model_dir, len(recipe.classes), precision, own=own)
    except (DependencyMissingError, ModelInvalidError) as error:
        return _instead(delta, recipe, error)


def _onnx(model_dir: Path, classes: int, precision: Precision | None, *, own: bool) -> Engine:
    if precision is None:
        precision = precision_of(model_dir) if on_cpu() else Precision.FP32
    if precision is Precision.INT8:
        return OnnxEngine(model_dir / INT8_FILE, classes, device="cpu")
    return OnnxEngine(whole_file(model_dir) if own else model_dir / ONNX_FILE, classes)


def _torch(delta: Path, recipe: Recipe) -> Engine:
    try:
        from shared.vision.torch_engine import TorchEngine  # at use: an ONNX node has no torch
    except ImportError as error:
        raise DependencyMissingError(
            "This model needs torch here: install hematovision with its `node` extra."
        ) from error
    return TorchEngine(delta, recipe)


def _instead(delta: Path, recipe: Recipe, problem: HematovisionError) -> Engine:
    """Return the model in torch, as ONNX Runtime cannot run it; raises ``problem`` where torch cannot either."""
    if not delta.is_file():
        raise problem
    try:
        engine = _torch(delta, recipe)
    except HematovisionError as error:
        log.warning("engine.no_fallback", runtime=problem.message, torch=error.message)
        raise problem from error
    log.warning("engine.fallback", engine=engine.name, reason=problem.message)
    return engine
