"""Forms in which updates travel."""

import numpy as np
import pytest

from server.federation.strategies.port import Sent
from server.federation.strategies.updates import verify
from shared.packing import pretrained
from tests.bench.federation.codecs import Codec, Sender, sent_down

RANDOM = np.random.default_rng(0)
MODEL = {
    "tail.a": RANDOM.normal(size=(40, 50)).astype(np.float32),
    "head.b": RANDOM.normal(size=8).astype(np.float32),
}
BASE = pretrained({name: array + np.float32(0.1) for name, array in MODEL.items()})
STEP = {
    name: array + np.float32(1e-3) * RANDOM.normal(size=array.shape).astype(np.float32) for name, array in MODEL.items()
}
VALUES = 2008
HEADER = 400


def sent(codec: Codec) -> Sent:
    return sent_down(codec, 1, MODEL, {}, BASE)[0]


def error(codec: Codec, rounds: int) -> float:
    """Return how far off the mean of ``rounds`` equal updates is."""
    sender, begun = Sender(codec), sent(codec)
    goal = STEP["tail.a"] + (begun.tensors["tail.a"] - begun.as_received["tail.a"])
    bodies = [sender.send(STEP, begun) for _ in range(rounds)]
    told = [verify("site", body, begun, examples=1).tensors["tail.a"].astype(np.float64) for body in bodies]
    return float(np.abs(np.mean(told, axis=0) - goal).max())


@pytest.mark.parametrize(
    ("codec", "bits"),
    [(Codec.FP32, 32), (Codec.FP16, 16), (Codec.FP16_FEEDBACK, 16), (Codec.PACKED, 5.4), (Codec.PACKED_FEEDBACK, 5.4),
     (Codec.COARSE, 2.2), (Codec.COARSE_FEEDBACK, 2.2)],
)  # fmt: skip
def test_sizes_are_those_of_the_values(codec: Codec, bits: float) -> None:
    assert len(Sender(codec).send(STEP, sent(codec))) == pytest.approx(VALUES * bits / 8, abs=HEADER)


@pytest.mark.parametrize("codec", [Codec.FP16, Codec.PACKED, Codec.COARSE])
def test_what_is_rounded_away_comes_later_with_feedback_and_never_without(codec: Codec) -> None:
    feedback = Codec(f"{codec} with error feedback")
    assert error(codec, 1) == pytest.approx(error(feedback, 1))
    assert error(codec, 40) == pytest.approx(error(codec, 1))
    assert error(feedback, 40) < error(codec, 1) / 10


def test_fp32_loses_nothing() -> None:
    assert error(Codec.FP32, 1) < 1e-9
