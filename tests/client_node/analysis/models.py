"""A tiny real ONNX model: it averages each colour over the crop and classifies by it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shared.contracts.model_card import ModelCard
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from shared.contracts.training import CalibrationSummary, Recipe
from shared.vision import finder
from shared.vision.boxes import KINDS
from shared.vision.preprocessing import BOX_MARGIN

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL, CellClass.IMMATURE_GRANULOCYTE)
COLOURS = {
    CellClass.NEUTROPHIL: (60, 200, 60),
    CellClass.LYMPHOCYTE: (60, 60, 200),
    CellClass.EOSINOPHIL: (200, 60, 60),
    CellClass.IMMATURE_GRANULOCYTE: (60, 60, 60),
}
_SIDE = 32


def make_model(
    folder: Path, version: str = "test-1", *, finds: bool = False, kind: ObjectKind = ObjectKind.CELL,
    colours: Mapping[CellClass, Sequence[float]] = COLOURS, sharpness: float = 12.0,
) -> Path:  # fmt: skip
    """Write a model version (card.json, model.onnx) that tells the mean colours of crops apart.

    Its finder, trained or not (``finds``), takes everything for ``kind``, lying as the middle 1 / 1.24 of the crop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    means = np.array([colours[cls] for cls in CLASSES], np.float32) / 127.5 - 1
    weights, bias = sharpness * means, -sharpness / 2 * (means**2).sum(axis=1)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"], transB=1),
        helper.make_node("Gemm", ["features", "nothing", "object"], ["objects"], transB=1),
    ]
    shapes: dict[str, list[str | int | None]] = {
        "images": ["n", 3, _SIDE, _SIDE],
        "logits": ["n", len(CLASSES)],
        "features": ["n", 3],
        "objects": ["n", finder.OUTPUTS],
    }
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    constants = {
        "weights": weights,
        "bias": bias,
        "nothing": np.zeros((finder.OUTPUTS, 3)),
        "object": np.array([5.0 * (one is kind) for one in KINDS] + [0.0, 0.0, *[-np.log(BOX_MARGIN)] * 2]),
    }
    initial = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    outputs = [values[name] for name in ("logits", "features", "objects")]
    graph = helper.make_graph(nodes, "colours", [values["images"]], outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    card = ModelCard(
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        base_sha256="0" * 64,
        recipe=Recipe(classes=CLASSES, input_size=_SIDE),
        artefacts=(),
        run_key="run-1",
        sites={},
        examples={},
        boxes={"hospital-a": 12} if finds else {},
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.95),
    )
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))
    return folder


def install_model(
    home: Path, version: str = "test-1", *, finds: bool = False, kind: ObjectKind = ObjectKind.CELL
) -> Path:
    """Make it the current model of a node's home."""
    folder = make_model(home / "models" / version, version, finds=finds, kind=kind)
    (home / "models" / "current.json").write_text(json.dumps({"version": version}))
    return folder


def cell_image(cls: CellClass, seed: int = 0, side: int = 80) -> NDArray[np.uint8]:
    """A gallery image that the model calls ``cls``; another seed, another image."""
    noise = np.random.default_rng(seed).normal(0, 6, (side, side, 3))
    return np.clip(np.array(COLOURS[cls]) + noise, 0, 255).astype(np.uint8)
