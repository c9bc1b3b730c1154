"""The warm model of the trainer: built once, then only its trainable tensors change."""

from collections.abc import Callable, Mapping

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import Recipe
from shared.packing import Reference, pretrained
from shared.vision import backbones
from shared.vision.device import free, placed, prepare, torch_device
from shared.vision.model import CellModel, build
from shared.vision.trunk import TrunkRunner, trunk_runner
from shared.vision.weights import base_sha256

Tensors = dict[str, NDArray[np.generic]]
_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))

log = structlog.get_logger(__name__)


class ModelStore:
    """Holds the last model used; a request for another backbone or number of classes replaces it.

    ``device`` says where it is to compute, and is asked for each request.
    """

    def __init__(self, device: Callable[[], torch.device] = torch_device) -> None:
        self._device = device
        self._key: tuple[str, int, int | None] | None = None
        self._model: CellModel | None = None
        self._reference: Reference | None = None
        self._trunks: dict[tuple[str, int, int], TrunkRunner] = {}
        self._place = torch.device("cpu")

    @property
    def on_gpu(self) -> bool:
        """Whether the model lies on a GPU at the moment."""
        return self._place.type == "cuda"

    def trunk(self, model: CellModel, size: int) -> TrunkRunner:
        """Return the runner of the model's trunk; it depends on backbone, cut and input size alone."""
        key = (model.entry.name, len(model.trunk), size)
        if key not in self._trunks:
            self._trunks.clear()
            self._trunks[key] = trunk_runner(model, size)
        return self._trunks[key]

    def check(self, recipe: Recipe, expected_base: str) -> None:
        """Return if a model of ``recipe`` could be made here, without making it; raises as `model` does."""
        if base_sha256(backbones.get(recipe.backbone)) != expected_base:
            raise ModelInvalidError("This node has other base weights than the centre; install the same release.")

    def model(self, recipe: Recipe, expected_base: str) -> CellModel:
        """Return the model of ``recipe``, on the device that the site has chosen.

        Raises `ModelInvalidError` if its backbone is unknown or this node's base weights have another hash, and
        `ConfigError` if the site's choice of a device is none.
        """
        self.check(recipe, expected_base)
        device = self._device()
        key = (recipe.backbone, len(recipe.classes), recipe.frozen_stages)
        if self._model is None or self._key != key:
            self._model = self._reference = None  # never two in memory
            self._model = build(recipe.backbone, len(recipe.classes), frozen_stages=recipe.frozen_stages)
            self._reference = pretrained({name: value.numpy() for name, value in self._model.trainable_state().items()})
            self._key = key
        prepare(device)
        if device != self._place:
            self._trunks.clear()  # they compute where the model lay
            self._place = device
        placed(self._model, device)
        return self._model

    def reference(self, recipe: Recipe, expected_base: str) -> Reference:
        """Return what packed tensors of ``recipe`` differ from; raises as `model` does."""
        self.model(recipe, expected_base)
        if self._reference is None:
            raise ModelInvalidError("This node's model could not be made; see the node's log.")
        return self._reference

    def yield_gpu(self) -> None:
        """Give back what memory of the GPU is not in use, for an analysis that waits for it."""
        free(self._place)

    def release(self) -> None:
        """Leave a GPU to the others while there is nothing to do: the model waits in the machine's memory."""
        if not self.on_gpu:
            return
        device, self._place = self._place, torch.device("cpu")
        self._trunks.clear()
        try:
            if self._model is not None:
                placed(self._model, self._place)
            free(device)
        except RuntimeError:  # a GPU that has failed keeps what lies on it
            log.exception("training.gpu_lost")
            self._model = None


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
            name: value.cpu().numpy().astype(like[name].dtype, order="C")
            for name, value in model.trainable_state().items()
        }
    if not all(np.isfinite(array.astype(np.float32)).all() for array in result.values()):
        raise ModelInvalidError(
            "Training diverged on this site's cells; ask the coordinator for a lower learning rate."
        )
    return result
