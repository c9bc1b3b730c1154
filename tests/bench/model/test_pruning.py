"""What the rows of pruning stand on."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.model_card import ModelCard
from shared.contracts.training import CalibrationSummary
from shared.vision.model import build
from tests.bench.model.folder import keep
from tests.bench.model.prune import prune
from tests.bench.model.pruning import paired_loss, prune_rows, restate
from tests.bench.model.stages import CLASSES, RECIPE

SIZE = 64
RECIPE_SMALL = RECIPE.model_copy(update={"input_size": SIZE, "batch_size": 8})


class Images:
    """Cells that are random pictures."""

    def __init__(self, count: int) -> None:
        self._images = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.5

    def __len__(self) -> int:
        return len(self._images)

    def draw(self, chosen: np.ndarray[tuple[int], np.dtype[np.int64]], random: np.random.Generator) -> Tensor:
        return self._images[chosen]

    def plain(self, start: int, stop: int) -> Tensor:
        return self._images[start:stop]


def test_restated_layers_have_the_statistics_of_what_they_see_and_stay_still_in_training() -> None:
    model = prune(build("tf_efficientnet_lite0", 3, frozen_stages=0), SIZE, 0.3, lambda _: None)
    first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    momentum = first.momentum
    source = Images(32)
    restate(model, source, batch=32, batches=1)
    assert not any(layer.training for layer in model.modules())
    assert first.momentum == momentum
    # One batch's chosen images, again: what comes out in front of the activation has mean 0 and deviation 1.
    chosen = np.random.default_rng(0).integers(0, 32, 32)
    with torch.inference_mode():
        before = model.tail[0](source.draw(chosen, np.random.default_rng(0)))
    torch.testing.assert_close(first.running_mean, before.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(first.running_var, before.var(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)


def test_paired_loss_counts_points_and_knows_that_it_is_paired() -> None:
    before = np.array([True] * 90 + [False] * 10)
    after = np.array([True] * 84 + [False] * 6 + [True] * 2 + [False] * 8)
    row = paired_loss("x", before, after)
    assert row["value"] == pytest.approx(4.0)
    assert row["low"] == pytest.approx(4.0 - 196 * np.sqrt(8 - 16 / 100) / 100)
    assert paired_loss("x", before, before)["high"] == 0.0


def cell(folder: Path, number: int) -> LabelledCell:
    """Two classes that a glance tells apart: dark and bright."""
    level = 40 + 150 * (number % 2)
    pixels = np.random.default_rng(number).integers(level, level + 40, (80, 80, 3), dtype=np.uint8)
    pixels[:6] = 250  # empty glass: white balance would make both alike without it
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    return LabelledCell(
        f"{number:064x}", path, None, CLASSES[number % 2], "s", f"g{number}", Origin.IMPORT, "s", Split.TRAIN
    )


def card() -> ModelCard:
    return ModelCard(
        version="small", created_at=datetime.now(UTC), base_sha256="0" * 64, recipe=RECIPE_SMALL, artefacts=(),
        run_key="small", sites={}, examples={},
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
    )  # fmt: skip


def test_rows_are_of_exported_models_that_learnt_again(tmp_path: Path) -> None:
    cells = [cell(tmp_path, number) for number in range(24)]
    model = build(RECIPE_SMALL.backbone, len(CLASSES), frozen_stages=0)
    keep(tmp_path / "model", model, RECIPE_SMALL)
    (tmp_path / "model" / "card.json").write_text(card().model_dump_json(by_alias=True))
    learn, test = cells[:16], cells[16:]
    rows = prune_rows(tmp_path, tmp_path / "model", RECIPE_SMALL, learn, test, ratios=(0.3,), epochs=1)
    values = {str(row["measure"]): row["value"] for row in rows}
    name = "30% of the channels pruned"
    untrained = values["unpruned: accuracy, eight classes, test groups of both sources"]
    assert isinstance(untrained, float)
    assert values[f"{name}: accuracy after it"] == 1.0 > untrained
    sizes = [values[f"{one}: ONNX file (MB)"] for one in (name, "unpruned")]
    assert isinstance(sizes[0], float)
    assert isinstance(sizes[1], float)
    assert sizes[0] < 0.7 * sizes[1]
    assert {f"{one}: ms a crop, one core, fp32" for one in (name, "unpruned")} <= set(values)
