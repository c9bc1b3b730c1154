"""Structured pruning of a real model."""

from pathlib import Path

import pytest
import torch

from shared.contracts.errors import UsageError
from shared.vision.export import export_onnx
from shared.vision.model import CellModel, build
from tests.bench.model.prune import prune

SIZE = 64


def _size(model: CellModel) -> int:
    return sum(value.numel() for value in model.parameters())


def test_prune_makes_a_smaller_model_that_exports_with_features_of_the_same_width(tmp_path: Path) -> None:
    model = build("tf_efficientnet_lite0", 3)
    seen: list[bool] = []
    smaller = prune(model, SIZE, 0.25, lambda copy: seen.append(all(p.requires_grad for p in copy.parameters())))
    assert seen == [True]
    assert _size(smaller) < 0.8 * _size(model)
    with torch.inference_mode():
        outputs = [part.shape for part in smaller(torch.zeros(2, 3, SIZE, SIZE))]
        assert outputs == [part.shape for part in model(torch.zeros(2, 3, SIZE, SIZE))]
    assert export_onnx(smaller, SIZE, tmp_path / "small.onnx") < 1e-3


@pytest.mark.parametrize("ratio", [0.0, 0.95])
def test_prune_refuses_a_share_that_is_none(ratio: float) -> None:
    with pytest.raises(UsageError):
        prune(build("tf_efficientnet_lite0", 3), SIZE, ratio, lambda _: None)
