"""Whether overlays are about the model: they must not survive its weights (Adebayo et al. 2018)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr

from client_node.analysis.activation import dyed, gradcam_maps, heat
from client_node.analysis.explain import drawn, share_inside
from client_node.datasets.labelled import LabelledCell
from shared.contracts.training import Recipe
from shared.vision import backbones, preprocessing
from shared.vision.engine import DELTA_FILE
from shared.vision.images import load_image
from shared.vision.model import CellModel, build
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row, figure, row, share
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES

Heat = NDArray[np.float32]
_SIDE: Final = 144
_SHOWN: Final = 6
_CELLS: Final = 48
_SEED: Final = 20_261_126
"""Not one that models are made from: a trained head still resembles the head that it began as."""
_PARTS: Final = ("head", "tail", "all")


def overlay_rows(folder: Path, recipe: Recipe, cells: Sequence[LabelledCell], sheet: Path) -> list[Row]:
    """Return how like the overlays of ``cells`` are before and after randomising weights, and where their heat lies.

    A blank overlay, one that shows no evidence, is like no other and unlike none: it is counted, and compared with
    nothing. ``sheet``: a picture of some cells beside their overlays, as trained and randomised, is written there.
    """
    entry = backbones.get(recipe.backbone)
    crops = [preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in cells]
    images = [preprocessing.to_input(crop, recipe.input_size, entry.mean, entry.std) for crop in crops]
    model = _model(folder, recipe)
    with torch.inference_mode():
        said = [int(model(torch.from_numpy(image[None]))[0].argmax()) for image in images]
    trained = _heats(model, images, said)
    rows, last = [share("overlays without any evidence, as trained", _blank(trained))], trained
    for part in _PARTS:
        last = _heats(_randomised(_model(folder, recipe), part), images, said)
        rows += _changed(part, trained, last)
    nuclei = [dyed(crop, _SIDE) for crop in crops]
    shares = np.array([share_inside(one, nucleus) or 0.0 for one, nucleus in zip(trained, nuclei, strict=True)])
    covered = np.array([float(nucleus.mean()) for nucleus in nuclei])
    rows += [
        figure("share of the heat on the nucleus", lambda some: float(shares[some].mean()), len(cells)),
        figure("the same by chance: the nucleus' share of the crop", lambda some: float(covered[some].mean()),
               len(cells)),
    ]  # fmt: skip
    _sheet(crops[:_SHOWN], trained[:_SHOWN], last[:_SHOWN]).save(sheet)
    return rows


def _changed(part: str, trained: Sequence[Heat], randomised: Sequence[Heat]) -> list[Row]:
    blank = _blank(randomised)
    pairs = [
        (one, other) for one, other in zip(trained, randomised, strict=True) if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    rows = [share(f"overlays without any evidence after randomising: {part}", blank)]
    name = f"overlay's rank correlation with itself after randomising: {part} (median, quartiles)"
    if not pairs:
        return rows  # nothing to compare: the share above says so
    likeness = [float(spearmanr(one.ravel(), other.ravel()).statistic) for one, other in pairs]
    low, high = np.quantile(likeness, [0.25, 0.75])
    middle = float(np.median(likeness))
    return [*rows, row(name, middle, float(low), float(high), len(pairs), goal=0.5, at_most=True)]


def _blank(heats: Sequence[Heat]) -> NDArray[np.bool_]:
    return np.array([np.ptp(one) == 0 for one in heats])


def _model(folder: Path, recipe: Recipe) -> CellModel:
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    model.load_trainable(load_file(folder / DELTA_FILE))
    return model


def _randomised(model: CellModel, part: str) -> CellModel:
    """Give weights that know nothing, each as widely spread as it was."""
    generator = torch.Generator().manual_seed(_SEED)
    last = list(model.tail.children())[-4:]
    modules: dict[str, list[torch.nn.Module]] = {
        "head": [model.head], "tail": last, "all": [model.trunk, model.tail, model.head],
    }  # fmt: skip
    with torch.no_grad():
        for module in modules[part]:
            for value in module.parameters():
                if value.dim() > 1:
                    value.normal_(0.0, float(value.std()), generator=generator)
    return model


def _heats(model: CellModel, images: Sequence[NDArray[np.float32]], said: Sequence[int]) -> list[Heat]:
    maps = gradcam_maps(model)
    return [heat(maps, image, position, _SIDE) for image, position in zip(images, said, strict=True)]


def _sheet(crops: Sequence[preprocessing.Pixels], trained: Sequence[Heat], randomised: Sequence[Heat]) -> Image.Image:
    sheet = Image.new("RGB", (3 * _SIDE, len(crops) * _SIDE), "#ffffff")
    for number, crop in enumerate(crops):
        small = preprocessing.scale(crop, _SIDE)
        for place, picture in enumerate((small, drawn(small, trained[number]), drawn(small, randomised[number]))):
            sheet.paste(Image.fromarray(picture), (place * _SIDE, number * _SIDE))
    return sheet


def measure(bench: Bench) -> Measured:
    """Measure on some test cells."""
    cells = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_CELLS]
    sheet = bench.work / "pictures" / "overlays.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    return Measured(overlay_rows(bench.model("both"), bench.stage("both").recipe, cells, sheet))


SECTION: Final = Section(
    name="overlays",
    title="Overlays beside randomised weights",
    measure=measure,
    version=2,
    seconds=(40, 40),
    models=("both",),
    method=(
        "Grad-CAM by captum on the model's tensors (eager torch), as `hematovision-node explain` draws it. An overlay "
        "that is about the model must not survive its weights (Adebayo et al. 2018): rank correlation of the heat "
        "before and after, on test cells where both show any."
    ),
)
