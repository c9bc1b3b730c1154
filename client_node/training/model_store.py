"""The warm model of the trainer: built once, then only its trainable tensors change."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import Recipe
from shared.vision import backbones
from shared.vision.model import CellModel, build
from shared.vision.trunk import Trunk
from shared.vision.weights import base_sha256

Tensors = dict[str, NDArray[np.generic]]
_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


class ModelStore:
    """Holds the last model used; a request for another backbone or number of classes replaces it."""

    def __init__(self) -> None:
        self._key: tuple[str, int, int | None] | None = None
        self._model: CellModel | None = None
        self._trunks: dict[tuple[str, int, int], Trunk] = {}

    def trunk(self, model: CellModel, size: int) -> Trunk:
        """Return the runner of the model's trunk; it depends on backbone, cut and input size alone."""
        key = (model.entry.name, len(model.trunk), size)
        if key not in self._trunks:
            self._trunks.clear()
            self._trunks[key] = Trunk(model, size)
        return self._trunks[key]

    def check(self, recipe: Recipe, expected_base: str) -> None:
        """Return if a model of ``recipe`` could be made here, without making it; raises as `model` does."""
        if base_sha256(backbones.get(recipe.backbone)) != expected_base:
            raise ModelInvalidError("This node has other base weights than the centre; install the same release.")

    def model(self, recipe: Recipe, expected_base: str) -> CellModel:
        """Return the model of ``recipe``.

        Raises `ModelInvalidError` if its backbone is unknown or this node's base weights have another hash.
        """
        self.check(recipe, expected_base)
        key = (recipe.backbone, len(recipe.classes), recipe.frozen_stages)
        if self._model is None or self._key != key:
            self._model = None  # never two in memory
            self._model = build(recipe.backbone, len(recipe.classes), frozen_stages=recipe.frozen_stages)
            self._key = key
        return self._model


def set_tensors(model: CellModel, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Set the tensors that learn from received ones; raises `ModelInvalidError`, changing nothing, if unfit."""
    if any(array.dtype not in _DTYPES for array in tensors.values()):
        raise ModelInvalidError("A received tensor is neither float16 nor float32; ask the centre for a new model.")
    model.load_trainable({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})


def get_tensors(model: CellModel, like: Mapping[str, NDArray[np.generic]]) -> Tensors:
    """Return the tensors that learn, each in the type in which it was received.

    Raises `ModelInvalidError` if training has diverged, or grown beyond what float16 holds.
    """
    with np.errstate(over="ignore"):
        result: Tensors = {
            name: value.cpu().numpy().astype(like[name].dtype) for name, value in model.trainable_state().items()
        }
    if not all(np.isfinite(array.astype(np.float32)).all() for array in result.values()):
        raise ModelInvalidError(
            "Training diverged on this site's cells; ask the coordinator for a lower learning rate."
        )
    return result
