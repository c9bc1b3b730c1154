"""An unknown laboratory's stain raises `out_of_distribution`, field by field and for the smear, instead of nonsense."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client_node.analysis.fields import find_cells
from client_node.analysis.model import load_model
from client_node.analysis.service import Analyser
from shared.contracts.ontology import CellClass
from shared.vision import backbones, calibration, preprocessing
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import make_model

SPOTS = [(CellClass.NEUTROPHIL, x, y) for x in (120.0, 320.0, 520.0) for y in (110.0, 290.0)]


def turned(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another stain: the hue turned by 45 degrees."""
    hue = np.array(Image.fromarray(image).convert("HSV"))
    hue[..., 0] -= 32  # modulo 256, as hue is
    return np.asarray(Image.fromarray(hue, "HSV").convert("RGB"))


def fitted(folder: Path) -> Path:
    """A model whose site has fitted its feature space on fields of its own."""
    make_model(folder)
    model = load_model(folder)
    crops = [cell.crop for seed in range(12) for cell in find_cells(model, draw_field(0, SPOTS, seed)[0]).cells]
    logits, features = [], []
    for crop in crops:
        found = model.engine.run(inputs(crop))
        logits.append(found.logits)
        features.append(found.features)
    labels = np.concatenate(logits).argmax(axis=1).astype(np.int64)
    adapter = calibration.fit_adapter(np.concatenate(logits), np.concatenate(features), labels)
    (folder / "adapter.json").write_text(adapter.model_dump_json())
    return folder


def inputs(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    entry = backbones.get("tf_efficientnet_lite0")
    return preprocessing.to_input(crop, 32, entry.mean, entry.std)[None]


def test_an_unknown_stain_is_flagged_and_a_known_one_is_not(tmp_path: Path) -> None:
    model = fitted(tmp_path / "model")
    for number in range(4):
        image = draw_field(0, SPOTS, 50 + number)[0]
        save(tmp_path / f"known/{number}.png", image)
        save(tmp_path / f"unknown/{number}.png", turned(image))
    known, unknown = (
        Analyser(tmp_path / "home", model_dir=model).analyze([tmp_path / name]).smears[0]
        for name in ("known", "unknown")
    )
    assert "out_of_distribution" not in [flag.id for flag in known.flags]
    assert all(field.ood_score is not None and field.ood_score < 1.0 for field in known.fields)
    assert "out_of_distribution" in [flag.id for flag in unknown.flags]
    assert all(field.ood_score is not None and field.ood_score > 1.0 for field in unknown.fields)
