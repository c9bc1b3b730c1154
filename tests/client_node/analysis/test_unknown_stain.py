"""An unknown laboratory's stain raises `out_of_distribution`, field by field and for the smear, instead of nonsense."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client_node.analysis.fields import find_cells
from client_node.analysis.model import load_model
from client_node.analysis.service import Analyser
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratories, KnownLaboratory
from shared.contracts.ontology import CellClass
from shared.vision import backbones, calibration, gamut, preprocessing
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import make_model
from tests.shared.vision.slide_files import tiled_tiff

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


@pytest.fixture
def aware(tmp_path: Path) -> Path:
    """A model that carries the colours of the laboratory that taught it, and nothing else."""
    folder = make_model(tmp_path / "model")
    colours = gamut.fit(draw_field(0, SPOTS, seed)[0] for seed in range(gamut.LEAST_IMAGES))
    known = KnownLaboratories(laboratories=(KnownLaboratory(gamut=colours),))
    (folder / KNOWN_FILE).write_text(known.model_dump_json())
    return folder


def greenish(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stain in which no nucleus is found: the hue turned by 90 degrees."""
    hue = np.array(Image.fromarray(image).convert("HSV"))
    hue[..., 0] += 64
    return np.asarray(Image.fromarray(hue, "HSV").convert("RGB"))


def test_a_stain_in_which_no_nucleus_is_found_is_flagged_by_its_colours(aware: Path, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"strange/{number}.png", greenish(draw_field(0, SPOTS, 60 + number)[0]))
        save(tmp_path / f"empty/{number}.png", draw_field(0, [], 60 + number)[0])
    analyser = Analyser(tmp_path / "home", model_dir=aware)
    strange, empty = (analyser.analyze([tmp_path / name]).smears[0] for name in ("strange", "empty"))
    assert strange.cells == empty.cells == ()
    assert (strange.quality.empty_fields, strange.quality.strange_fields) == (3, 3)
    (flag,) = [flag for flag in strange.flags if flag.id == "out_of_distribution"]
    assert flag.evidence.text == "3 fields show no cell to judge, and dyes unlike what is known"
    assert all(field.ood_score is not None and field.ood_score > 1.0 for field in strange.fields)
    assert (empty.quality.empty_fields, empty.quality.strange_fields) == (3, 0)
    assert "out_of_distribution" not in [flag.id for flag in empty.flags]


def test_a_few_empty_fields_of_another_dye_do_not_outvote_good_ones(aware: Path, tmp_path: Path) -> None:
    save(tmp_path / "mixed/0.png", greenish(draw_field(0, SPOTS, 60)[0]))
    for number in (1, 2):
        save(tmp_path / f"mixed/{number}.png", draw_field(0, SPOTS, 60 + number)[0])
    (smear,) = Analyser(tmp_path / "home", model_dir=aware).analyze([tmp_path / "mixed"]).smears
    assert (smear.quality.empty_fields, smear.quality.strange_fields) == (1, 1)
    assert not any("no cell to judge" in flag.evidence.text for flag in smear.flags)


def test_a_slide_in_which_nothing_is_found_is_judged_by_parts_all_over_it(aware: Path, tmp_path: Path) -> None:
    patch = greenish(draw_field(0, SPOTS, 60)[0])[:480, :500]
    marks = {(x * 512 + 4, y * 512 + 4): patch for x in range(10) for y in range(10)}
    file = tiled_tiff(tmp_path / "s.tif", 5120, marks)
    (smear,) = Analyser(tmp_path / "home", model_dir=aware).analyze([file]).smears
    assert (smear.cells, smear.fields) == ((), ())
    assert "out_of_distribution" in [flag.id for flag in smear.flags]


def test_without_known_colours_an_empty_smear_only_has_too_few_cells(tmp_path: Path) -> None:
    save(tmp_path / "strange/0.png", greenish(draw_field(0, SPOTS, 60)[0]))
    analyser = Analyser(tmp_path / "home", model_dir=make_model(tmp_path / "model"))
    (smear,) = analyser.analyze([tmp_path / "strange"]).smears
    assert (smear.quality.empty_fields, smear.fields[0].ood_score) == (0, None)
    assert "out_of_distribution" not in [flag.id for flag in smear.flags]
