"""The torch fallback of `shared.vision.engine`, for a model that has no ONNX file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision.engine import Arrays, Outputs
from shared.vision.model import CellModel, build


def load_model(delta: Path, recipe: Recipe) -> CellModel:
    """Return base weights and ``delta`` together; raises `ModelInvalidError` if they do not fit."""
    model = build(recipe.backbone, len(recipe.classes))
    try:
        tensors = load_file(delta)
    except (OSError, SafetensorError) as error:
        raise ModelInvalidError("The model's tensors cannot be read; install the model again.") from error
    model.load_trainable(tensors)
    return model


class TorchEngine:
    """Eager torch on the CPU."""

    name = "torch"

    def __init__(self, delta: Path, recipe: Recipe) -> None:
        self._model = load_model(delta, recipe)

    def run(self, batch: Arrays) -> Outputs:
        """Return the outputs; see `shared.vision.engine.Engine`."""
        with torch.inference_mode():
            return Outputs(*(value.numpy() for value in self._model(torch.from_numpy(batch))))
