"""A trained model as the folder of a model version: card, tensors, ONNX file."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import load_file, save_file

from client_node.datasets.labelled import LabelledCell
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratories, KnownLaboratory
from shared.contracts.model_card import ArtefactRef, ModelCard
from shared.contracts.training import (
    CalibrationSummary,
    Recipe,
)
from shared.vision import backbones, calibration, colour, dye, preprocessing
from shared.vision.device import placed, torch_device
from shared.vision.engine import DELTA_FILE, ONNX_FILE
from shared.vision.export import export_onnx
from shared.vision.images import load_image
from shared.vision.known import known_space
from shared.vision.model import CellModel, build
from shared.vision.weights import base_sha256
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.stages import CLASSES, Stage

TOLD: Final = 1
"""Raise it when a version would tell something else of the same model."""
_MOST_STAINED: Final = 200
_MOST_TOLD: Final = 600


def keep(folder: Path, model: CellModel, recipe: Recipe) -> None:
    """Write a model's tensors and its ONNX file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.trainable_state(), folder / DELTA_FILE)
    export_onnx(model, recipe.input_size, folder / ONNX_FILE)


def tell(
    folder: Path, stage: Stage, cells: Sequence[LabelledCell], validation: Sequence[LabelledCell],
    boxes: dict[str, int],
) -> None:  # fmt: skip
    """Write what a version tells hospitals: its card, and what the laboratories look like that it learnt from.

    ``cells`` are those that it learnt from; what hospitals without labels shall use is fitted on ``validation``.
    """
    model = started(folder, stage.recipe).to("cpu")
    learnt = {source: answers_of(model, stage.recipe, _first(cells, source)) for source in stage.sources}
    held = {source: answers_of(model, stage.recipe, _first(validation, source)) for source in stage.sources}
    known = KnownLaboratories(laboratories=tuple(_laboratory(learnt[name], held[name]) for name in stage.sources))
    (folder / KNOWN_FILE).write_text(known.model_dump_json())
    files = [folder / name for name in (DELTA_FILE, ONNX_FILE, KNOWN_FILE)]
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
        calibration=_calibration(cells, validation, list(held.values())),
    )
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))


def _first(cells: Sequence[LabelledCell], source: str) -> list[LabelledCell]:
    own = sorted((cell for cell in cells if cell.source == source), key=lambda cell: cell.hash)
    return own[:_MOST_TOLD]


def _laboratory(learnt: Answers, held: Answers) -> KnownLaboratory:
    """What a source's cells look like to the model, as a hospital tells it."""
    return KnownLaboratory(space=known_space(learnt.features, held.features))


def _calibration(
    cells: Sequence[LabelledCell], validation: Sequence[LabelledCell], held: Sequence[Answers]
) -> CalibrationSummary:
    """What hospitals without cells of their own use: fitted on validation cells, the dye that of the largest source."""
    logits, labels = (np.concatenate([getattr(one, name) for one in held]) for name in ("logits", "labels"))
    groups = [cell.group for source in dict.fromkeys(cell.source for cell in validation) for cell in
              _first(validation, source)]  # fmt: skip
    features = np.concatenate([one.features for one in held])
    summary = calibration.fit_adapter(logits, features, labels, groups=groups).summary
    most = Counter(cell.source for cell in cells).most_common(1)[0][0]
    some = _first(cells, most)[:_MOST_STAINED]
    pixels = dye.stained_pixels(preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in some)
    return summary.model_copy(update={"density": colour.density_of(pixels), "dye": dye.dye_of(pixels)})


def started(folder: Path, recipe: Recipe) -> CellModel:
    """Return the trained model in ``folder``, ready to learn on."""
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    model.load_trainable(load_file(folder / DELTA_FILE))
    placed(model, torch_device())
    return model
