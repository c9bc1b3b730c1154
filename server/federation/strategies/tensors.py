"""Named tensors as they travel and as they are stored. Imported by the web process: no Flower here."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from shared.contracts.errors import DataInvalidError
from shared.tensors import check_tensors

Tensors = dict[str, NDArray[np.float32]]
FINDER = "finder."
"""Begin of the names of the tensors that learn from marked fields, which not every hospital has."""


def read_tensors(body: bytes) -> Tensors:
    """Return the tensors of a safetensors body as fp32."""
    check_tensors(body)
    return {name: array.astype(np.float32) for name, array in load(body).items()}


def wire_tensors(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return ``tensors`` as they travel: fp16, one safetensors body, in name order.

    Raises:
        DataInvalidError: a value does not fit fp16; the model has diverged.
    """
    with np.errstate(over="ignore"):
        half = {name: np.asarray(tensors[name].astype(np.float16), order="C") for name in sorted(tensors)}
    if not all(np.isfinite(array).all() for array in half.values()):
        raise DataInvalidError("The averaged model holds values that are not finite; lower the learning rate.")
    return bytes(save(half))


def stored_tensors(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return ``tensors`` as they are stored: fp32 safetensors in name order."""
    return bytes(save({name: np.asarray(tensors[name], np.float32, order="C") for name in sorted(tensors)}))
