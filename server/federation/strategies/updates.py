"""A site's update is input from outside: it is checked here, once, before any strategy sees it."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from server.federation.strategies.port import Sent, Update
from shared.contracts.errors import DataInvalidError
from shared.packing import Reference, unpack
from shared.tensors import check_same_shapes, check_tensors

MAX_EXAMPLES: Final = 10_000_000
LARGEST: Final = float(np.finfo(np.float16).max)
"""A model travels in fp16: an update beyond it would make a model that cannot be sent, and end everybody's run."""


def verify(site: str, body: bytes, sent: Sent, *, examples: int, boxes: int = 0) -> Update:
    """Return the update in ``body``: safetensors, fp16 or fp32; packed where what was sent was.

    Raises:
        DataInvalidError: names, shapes, values or counts are not what a sound update has.
    """
    if not (0 < examples <= MAX_EXAMPLES and 0 <= boxes <= MAX_EXAMPLES):
        raise DataInvalidError("The update claims an impossible number of training cells.")
    tensors = _read(body, sent, max_bytes=4 * sent.size + 65_536)
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise DataInvalidError("The update holds values that are not finite.")
    if not all(np.abs(array).max(initial=0.0) <= LARGEST for array in tensors.values()):
        raise DataInvalidError("The update holds values that are too large to be a model's.")
    return Update(site, tensors, examples, boxes)


def _read(body: bytes, sent: Sent, *, max_bytes: int) -> Mapping[str, NDArray[np.floating[Any]]]:  # Any: fp16 or fp32
    if sent.received is not None:
        # The change is added to the exact values: what was rounded away on the way down is not lost to the next round.
        return unpack(body, Reference(sent.tensors, sent.received.sha256), max_bytes=max_bytes)
    check_same_shapes(check_tensors(body, max_bytes=max_bytes), sent.specs)
    return load(body)
