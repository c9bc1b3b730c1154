"""The torch fallback of `shared.vision.engine`, for a model that has no ONNX file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision.device import mixed_precision, placed, torch_device
from shared.vision.engine import CPU_BATCH, GPU_BATCH, Arrays, Outputs
from shared.vision.model import CellModel, build
from shared.vision.precision import OWN_DELTA_FILE


def load_model(delta: Path, recipe: Recipe) -> CellModel:
    """Return base weights and ``delta`` together; raises `ModelInvalidError` if they do not fit."""
    model = build(recipe.backbone, len(recipe.classes), frozen_stages=recipe.frozen_stages)
    try:
        tensors = load_file(delta)
    except (OSError, SafetensorError) as error:
        raise ModelInvalidError("The model's tensors cannot be read; install the model again.") from error
    model.load_trainable(tensors)
    return model


class TorchEngine:
    """Eager torch: on a GPU in half precision where that is safe, else on the CPU."""

    def __init__(self, delta: Path, recipe: Recipe) -> None:
        self._device = torch_device()
        self._model = placed(load_model(delta, recipe), self._device)
        self.batch = CPU_BATCH if self._device.type == "cpu" else GPU_BATCH
        own = "-own" if delta.name == OWN_DELTA_FILE else ""
        self.name = f"torch{own}" if self._device.type == "cpu" else f"torch{own}-{self._device.type}"

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs; see `shared.vision.engine.Engine`."""
        images = torch.from_numpy(batch).to(self._device)
        if self._device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), mixed_precision(self._device):
            return Outputs(*(value.float().cpu().numpy() for value in self._model(images)))
