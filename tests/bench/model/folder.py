"""A trained model as the folder of a model version: card, tensors, ONNX file."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save_file

from client_node.datasets.catalogue import LabelledCell
from shared.contracts.model_card import ArtefactRef, ModelCard
from shared.contracts.training import CalibrationSummary, Recipe
from shared.vision import backbones, calibration, colour, preprocessing
from shared.vision.device import placed, torch_device
from shared.vision.engine import DELTA_FILE, ONNX_FILE
from shared.vision.export import export_onnx
from shared.vision.images import load_image
from shared.vision.model import CellModel, build
from shared.vision.weights import base_sha256
from tests.bench.model.evaluate import answers_of
from tests.bench.model.stages import CLASSES, Stage

_MOST_STAINED: Final = 200


def write(
    folder: Path, stage: Stage, model: CellModel, cells: Sequence[LabelledCell], validation: Sequence[LabelledCell],
    boxes: dict[str, int],
) -> None:  # fmt: skip
    """Write the version; its calibration for hospitals without cells of their own is fitted on ``validation``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.trainable_state(), folder / DELTA_FILE)
    export_onnx(model, stage.recipe.input_size, folder / ONNX_FILE)
    files = [folder / DELTA_FILE, folder / ONNX_FILE]
    seen = answers_of(model, stage.recipe, validation)
    summary = calibration.fit_adapter(seen.logits, seen.features, seen.labels).summary
    card = ModelCard(
        version=f"bench-{stage.name}",
        created_at=datetime.now(UTC),
        base_sha256=base_sha256(backbones.get(stage.recipe.backbone)),
        recipe=stage.recipe,
        artefacts=tuple(
            ArtefactRef(name=file.name, sha256=sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)
            for file in files
        ),
        run_key="bench-model",
        sites={},
        examples={source: sum(cell.source == source for cell in cells) for source in stage.sources},
        boxes={source: count for source, count in boxes.items() if count},
        calibration=CalibrationSummary(
            temperature=summary.temperature, conformal_quantile=summary.conformal_quantile, density=density(cells)
        ),
    )
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))


def density(cells: Sequence[LabelledCell]) -> colour.Density | None:
    """Return the dye that a model knows that learnt from ``cells``: of the source with the most of them."""
    most = Counter(cell.source for cell in cells).most_common(1)[0][0]
    some = [cell for cell in sorted(cells, key=lambda cell: cell.hash) if cell.source == most][:_MOST_STAINED]
    return colour.density(preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in some)


def started(folder: Path, recipe: Recipe) -> CellModel:
    """Return the trained model in ``folder``, ready to learn on."""
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    model.load_trainable(load_file(folder / DELTA_FILE))
    placed(model, torch_device())
    return model
