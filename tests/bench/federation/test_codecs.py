"""Forms in which updates travel."""

import numpy as np
import pytest
from safetensors.numpy import load

from server.federation.strategies.port import Sent
from tests.bench.federation.codecs import Codec, Sender, sent_down

RANDOM = np.random.default_rng(0)
MODEL = {"a": RANDOM.normal(size=(8, 50)).astype(np.float32), "b": RANDOM.normal(size=8).astype(np.float32)}
STEP = {
    name: array + np.float32(1e-3) * RANDOM.normal(size=array.shape).astype(np.float32) for name, array in MODEL.items()
}


def sent(codec: Codec) -> Sent:
    return Sent.of(1, sent_down(codec, MODEL), MODEL)


def error(codec: Codec, rounds: int) -> float:
    """Return how far off the mean of ``rounds`` equal updates is."""
    sender, begun = Sender(codec), sent(codec)
    told = [load(sender.send(STEP, begun)[0])["a"].astype(np.float64) for _ in range(rounds)]
    return float(np.abs(np.mean(told, axis=0) - STEP["a"]).max())


def test_sizes_are_those_of_the_values() -> None:
    values = sum(array.size for array in MODEL.values())
    sizes = {codec: Sender(codec).send(STEP, sent(codec))[1] for codec in Codec}
    header = 400
    assert sizes[Codec.FP32] == pytest.approx(4 * values, abs=header)
    assert sizes[Codec.FP16] == sizes[Codec.FP16_FEEDBACK] == pytest.approx(2 * values, abs=header)
    assert sizes[Codec.INT8] == sizes[Codec.INT8_FEEDBACK] == values + 4 * 16


@pytest.mark.parametrize("codec", [Codec.FP16, Codec.INT8])
def test_what_is_rounded_away_comes_later_with_feedback_and_never_without(codec: Codec) -> None:
    feedback = Codec(f"{codec} with error feedback")
    assert error(codec, 1) == pytest.approx(error(feedback, 1))
    assert error(codec, 40) == pytest.approx(error(codec, 1))
    assert error(feedback, 40) < error(codec, 1) / 10


def test_fp32_loses_nothing() -> None:
    assert error(Codec.FP32, 1) < 1e-9
