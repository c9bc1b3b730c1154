"""The fast PNG writer, read back by Pillow."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client_node.analysis.png import encode_png


@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 99), spread=st.sampled_from([2, 256]))
def test_encode_png_reads_back_to_the_same_pixels(width: int, height: int, seed: int, spread: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, spread, (height, width, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert np.array_equal(np.asarray(image), pixels)


def test_encode_png_is_no_larger_than_pillows() -> None:
    ramp = np.linspace(0, 200, 160)[:, None] + np.linspace(0, 50, 160)[None, :]
    noise = np.random.default_rng(0).normal(0, 3, (160, 160, 3))
    pixels = np.clip(ramp[..., None] + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    assert len(encode_png(pixels)) < 1.15 * len(buffer.getvalue())
