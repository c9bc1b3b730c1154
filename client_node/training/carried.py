"""A request's tensors as they travel: read when they are wanted, and the answer's written in the same form."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from client_node.training.model_store import ModelStore
from shared.contracts.training import Request, TensorForm, TrainRequest
from shared.packing import Reference, pack, unpack
from shared.tensors import check_tensors


class Carried:
    """The body of one request; nothing of it is kept for the next, so that a node reads any round it is sent."""

    def __init__(self, models: ModelStore, request: Request, body: bytes) -> None:
        self._models = models
        self._request = request
        self._body = body
        self._received: Reference | None = None

    def read(self) -> Mapping[str, NDArray[np.floating[Any]]]:  # Any: fp16 or fp32
        """Return the tensors: fp16 or fp32 as they were sent, fp32 where they are packed.

        Raises:
            DataInvalidError: they are not in the form that the request names.
            ModelInvalidError: they are packed, and this node has other pretrained weights than the centre.
        """
        request = self._request
        if not self._body:
            return {}
        if not isinstance(request, TrainRequest) or request.form is not TensorForm.PACKED:
            check_tensors(self._body)
            return load(self._body)
        self._received = Reference.of(unpack(self._body, self._models.reference(request.recipe, request.base_sha256)))
        return self._received.tensors

    def write(self, update: Mapping[str, NDArray[np.generic]]) -> bytes:
        """Return what is answered, as it travels: packed as differences from what was received, or safetensors."""
        if not update:
            return b""
        if self._received is None:
            return bytes(save(dict(update)))
        return pack({name: np.asarray(array, np.float32) for name, array in update.items()}, self._received)
