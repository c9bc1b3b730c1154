"""Forms in which tensors may travel: what the product sends (fp16), and what it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import Tensors, stored_tensors, wire_tensors

_LEVELS: Final = 127
_SCALE_BYTES: Final = 4


class Codec(StrEnum):
    """A form. Down it is fp16 for all but the first."""

    FP32 = "fp32"
    FP16 = "fp16"
    FP16_FEEDBACK = "fp16 with error feedback"
    INT8 = "int8"
    INT8_FEEDBACK = "int8 with error feedback"

    @property
    def feedback(self) -> bool:
        """Whether a site adds what was rounded away to its next update (Seide et al. 2014, Karimireddy et al. 2019)."""
        return self in {Codec.FP16_FEEDBACK, Codec.INT8_FEEDBACK}


def sent_down(codec: Codec, tensors: Tensors) -> bytes:
    """Return the body that carries the model to the hospitals."""
    return stored_tensors(tensors) if codec is Codec.FP32 else wire_tensors(tensors)


@dataclass(slots=True)
class Sender:
    """A hospital's side: holds what earlier roundings left over."""

    codec: Codec
    residual: Tensors = field(default_factory=dict)

    def send(self, trained: Tensors, sent: Sent) -> tuple[bytes, int]:
        """Return (body as the centre reads it, bytes as they would travel) of a trained model."""
        left = self.residual if self.codec.feedback else {}
        wanted = {name: array + left[name] if left else array for name, array in trained.items()}
        if self.codec in {Codec.INT8, Codec.INT8_FEEDBACK}:
            told, size = _int8(wanted, sent.tensors)
            body = stored_tensors(told)
        else:
            kind = np.float32 if self.codec is Codec.FP32 else np.float16
            body = bytes(save({name: np.asarray(array, kind, order="C") for name, array in sorted(wanted.items())}))
            told = {name: np.asarray(array.astype(kind), np.float32) for name, array in wanted.items()}
            size = len(body)
        if self.codec.feedback:
            self.residual = {name: wanted[name] - told[name] for name in wanted}
        return body, size


def _int8(wanted: Mapping[str, NDArray[np.float32]], received: Tensors) -> tuple[Tensors, int]:
    """Return what the centre makes of the differences in 8 bits, each row with a scale of its own, and their bytes."""
    told: Tensors = {}
    size = 0
    for name, array in wanted.items():
        rows = (array - received[name]).reshape(len(array) if array.ndim else 1, -1)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / _LEVELS
        levels = np.round(rows / scale).astype(np.int8)
        told[name] = np.asarray(received[name] + (levels * scale).reshape(array.shape), np.float32)
        size += levels.nbytes + _SCALE_BYTES * len(scale)
    return told, size
