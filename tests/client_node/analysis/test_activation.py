"""Overlays: the same by both ways, of the class that was asked for, and gone when the weights are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from client_node.analysis.activation import Maps, cam_maps, gradcam_maps, heat
from shared.contracts.errors import ModelInvalidError
from shared.contracts.ontology import CORE_FIVE
from shared.vision.export import export_onnx
from shared.vision.model import CellModel, build
from shared.vision.preprocessing import to_input
from tests.client_node.analysis.factories import draw_field

_SIZE = 96
_CLASSES = 3

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.float32]]:
    field, boxes = draw_field(0, [(cls, 110.0 + 150 * k, 120.0) for k, cls in enumerate(CORE_FIVE[:4])])
    crops = [np.ascontiguousarray(field[box[1] - 10 : box[3] + 10, box[0] - 10 : box[2] + 10]) for box in boxes]
    return [to_input(crop, _SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) for crop in crops]


@pytest.fixture(scope="module")
def model() -> CellModel:
    return randomised(build("tf_efficientnet_lite0", _CLASSES), "head", seed=1)


def randomised(model: CellModel, part: str, *, seed: int) -> CellModel:
    """Give a part of the network weights that know nothing, each as widely spread as it was."""
    generator = torch.Generator().manual_seed(seed)
    modules = {"head": model.head, "tail": model.tail, "trunk": model.trunk}
    with torch.no_grad():
        for value in modules[part].parameters():
            value.normal_(0.0, max(float(value.std()) if value.numel() > 1 else 0.0, 0.02), generator=generator)
    return model


def overlays(maps: Maps, images: list[NDArray[np.float32]], position: int = 0) -> list[NDArray[np.float32]]:
    return [heat(maps, image, position, _SIZE) for image in images]


def likeness(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """Median rank correlation over the images."""
    return float(np.median([spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]))


def test_both_ways_give_the_same_picture(model: CellModel, images: list[NDArray[np.float32]], tmp_path: Path) -> None:
    export_onnx(model, _SIZE, tmp_path / "model.onnx")
    with_torch = overlays(gradcam_maps(model), images)
    without = overlays(cam_maps(tmp_path / "model.onnx"), images)
    for one, other in zip(with_torch, without, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
        assert one.shape == (_SIZE, _SIZE)
        assert (one.min(), one.max()) == (0.0, 1.0)


def test_another_class_has_another_overlay(model: CellModel, images: list[NDArray[np.float32]]) -> None:
    maps = gradcam_maps(model)
    assert likeness(overlays(maps, images, 0), overlays(maps, images, 0)) == pytest.approx(1.0)
    assert likeness(overlays(maps, images, 0), overlays(maps, images, 1)) < 0.5


@pytest.mark.parametrize("part", ["head", "tail", "trunk"])
def test_an_overlay_is_gone_when_weights_are_randomised(
    model: CellModel, images: list[NDArray[np.float32]], part: str
) -> None:
    # The sanity check of Adebayo et al. 2018: a picture that stays the same explains the image, not the model.
    before = overlays(gradcam_maps(model), images)
    other = randomised(build("tf_efficientnet_lite0", _CLASSES), "head", seed=1)
    after = overlays(gradcam_maps(randomised(other, part, seed=2)), images)
    assert likeness(before, after) < 0.6


def test_a_damaged_model_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelInvalidError, match="install the model again"):
        cam_maps(tmp_path / "model.onnx")
