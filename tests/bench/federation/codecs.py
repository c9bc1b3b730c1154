"""Forms in which tensors may travel: those of the product (packed, else fp16), and what they are compared with."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from safetensors.numpy import save

from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import Tensors, stored_tensors, wire_tensors
from shared.packing import STEP, Reference, pack, unpack


class Codec(StrEnum):
    """A form, of both ways."""

    FP32 = "fp32"
    FP16 = "fp16"
    FP16_FEEDBACK = "fp16 with error feedback"
    PACKED = "packed"
    """What a launch uses."""
    PACKED_FEEDBACK = "packed with error feedback"
    COARSE = "packed in steps ten times as large"
    COARSE_FEEDBACK = "packed in steps ten times as large with error feedback"

    @property
    def feedback(self) -> bool:
        """Whether a site adds what was rounded away to its next update (Seide et al. 2014, Karimireddy et al. 2019)."""
        return self in {Codec.FP16_FEEDBACK, Codec.PACKED_FEEDBACK, Codec.COARSE_FEEDBACK}

    @property
    def step(self) -> float:
        """Of a packed form's levels; 0: it is none."""
        if self in {Codec.COARSE, Codec.COARSE_FEEDBACK}:
            return 10 * STEP
        return STEP if self in {Codec.PACKED, Codec.PACKED_FEEDBACK} else 0.0


def sent_down(codec: Codec, number: int, exact: Tensors, state: Tensors, base: Reference) -> tuple[Sent, int]:
    """Return what the hospitals are sent of a round's model, and its bytes; ``base``: see `packing.pretrained`."""
    if codec.step:
        body = pack(exact, base, step=codec.step)
        return Sent.packed(number, body, base, exact, state), len(body)
    body = stored_tensors(exact) if codec is Codec.FP32 else wire_tensors(exact)
    return Sent.of(number, body, exact, state), len(body)


@dataclass(slots=True)
class Sender:
    """A hospital's side: holds what earlier roundings left over."""

    codec: Codec
    residual: Tensors = field(default_factory=dict)

    def send(self, trained: Tensors, sent: Sent) -> bytes:
        """Return a trained model as it travels."""
        left = self.residual if self.codec.feedback else {}
        wanted = {name: array + left[name] if left else array for name, array in trained.items()}
        if sent.received is not None:
            body = pack(wanted, sent.received, step=self.codec.step)
            told = unpack(body, sent.received)
        else:
            kind = np.float32 if self.codec is Codec.FP32 else np.float16
            body = bytes(save({name: np.asarray(array, kind, order="C") for name, array in sorted(wanted.items())}))
            told = {name: np.asarray(array.astype(kind), np.float32) for name, array in wanted.items()}
        if self.codec.feedback:
            self.residual = {name: wanted[name] - told[name] for name in wanted}
        return body
