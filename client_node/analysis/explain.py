"""Shows where a model sees a class in a cell: a class-activation overlay with its figures, on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field

from client_node.analysis import activation
from client_node.analysis.kept import kept_cell, model_of
from client_node.analysis.method import Method
from client_node.analysis.model import load_model
from client_node.analysis.store import Pixels
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass
from shared.vision.preprocessing import scale

Heat = NDArray[np.float32]
SIDE: Final = 192
"""Pixels along a side of an overlay."""
_STRENGTH: Final = 0.55
_CONTOUR: Final = 0.5
_STRIP_TEXT: Final = 14
# Every eighth of viridis (S. van der Walt, N. Smith; CC0), perceptually even; its greens and yellows are no stain's.
_VIRIDIS: Final = np.array(
    [(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
     (170, 220, 50), (253, 231, 37)], np.float32,
)  # fmt: skip


class Explanation(BaseModel):
    """The JSON of `explain`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    smear_id: str
    cell_id: str
    cls: CellClass = Field(alias="class")
    """The class that the overlay is about."""
    probability: float
    """Calibrated, of that class."""
    predicted: CellClass
    """What this model calls the cell; a class that the site has taught is none of the model's."""
    prediction_set: tuple[CellClass, ...]
    model_version: str
    analysed_with: str
    """The version whose analysis is kept; where it does not lie here any more, the current one explains itself."""
    method: Method
    path: str | None
    """Of the picture."""
    evidence: bool
    """False: nothing in the cell speaks for the class more than for the others; then there is no overlay to see."""
    centre: tuple[float, float] | None
    """Centre of mass of the heat, x and y in shares of the crop."""
    in_box: float | None
    """Share of the heat inside the cell's box; None where the image shows just this cell."""
    in_nucleus: float | None
    """Share of the heat on the dyed nucleus."""
    nucleus: float
    """Share of the crop that the nucleus covers: what ``in_nucleus`` would be by chance."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """An explanation with its pictures."""

    explanation: Explanation
    crop: Pixels
    """`SIDE` × `SIDE`, as the model reads it."""
    heat: Heat
    """`SIDE` × `SIDE`, 0–1."""


def explain(
    home: Path, smear_id: str, cell_id: str, *, cls: CellClass | None = None, method: Method = Method.AUTO
) -> Overlay:
    """Explain one kept cell by the model that analysed it: what speaks for ``cls`` (None: what the model calls it).

    Raises:
        NotFoundError: there is no such smear or cell.
        UsageError: the model does not predict ``cls``.
        ModelInvalidError, DependencyMissingError: see `activation.maps_of`.
    """
    kept = kept_cell(home, smear_id, cell_id)
    folder = model_of(home, kept.smear.model_version)
    model = load_model(folder)
    crop = kept.crop(model)
    (image,) = model.inputs([crop])
    outputs = model.engine.run(image[None])
    applied = model.calibrated(outputs.logits, outputs.features)
    predicted = model.classes[int(applied.probabilities[0].argmax())]
    wanted = cls or predicted
    if wanted not in model.classes:
        names = ", ".join(one.value for one in model.classes)
        raise UsageError(f"The model does not predict {wanted.value}; ask about one of: {names}.")
    position = model.classes.index(wanted)
    maps, used = activation.maps_of(folder, model.card.recipe, method)
    heat = activation.heat(maps, image, position, SIDE)
    nucleus = activation.dyed(crop, SIDE)
    box = kept.box_share(model)
    explanation = Explanation(
        smear_id=smear_id, cell_id=cell_id, cls=wanted, probability=float(applied.probabilities[0, position]),
        predicted=predicted,
        prediction_set=tuple(one for one, member in zip(model.classes, applied.sets[0], strict=True) if member),
        model_version=model.card.version, analysed_with=kept.smear.model_version, method=used, path=None,
        evidence=bool(heat.any()), centre=centre(heat), in_box=None if box is None else share_inside(heat, _mask(box)),
        in_nucleus=share_inside(heat, nucleus), nucleus=float(nucleus.mean()),
    )  # fmt: skip
    return Overlay(explanation, scale(crop, SIDE), heat)


def centre(heat: Heat) -> tuple[float, float] | None:
    """Return the centre of mass of a map, x and y in shares of its side; None where there is no heat."""
    total = float(heat.sum())
    if total <= 0:
        return None
    places = (np.arange(len(heat)) + 0.5) / len(heat)
    return float(heat.sum(axis=0) @ places / total), float(heat.sum(axis=1) @ places / total)


def share_inside(heat: Heat, mask: NDArray[np.bool_]) -> float | None:
    """Return the share of the heat inside ``mask``; None where there is no heat."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else None


def _mask(box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    x0, y0, x1, y1 = (round(min(1.0, max(0.0, value)) * SIDE) for value in box)
    mask[y0:y1, x0:x1] = True
    return mask


def drawn(crop: Pixels, heat: Heat) -> Pixels:
    """Return the crop under the heat: clear where there is none, never so dense that the cell is hidden.

    A thin line goes round what has at least half of the greatest heat.
    """
    place = heat * (len(_VIRIDIS) - 1)
    low = np.minimum(place.astype(int), len(_VIRIDIS) - 2)
    part = (place - low)[..., None]
    colour = _VIRIDIS[low] * (1 - part) + _VIRIDIS[low + 1] * part
    alpha = _STRENGTH * heat[..., None]
    result: Pixels = (crop * (1 - alpha) + colour * alpha).astype(np.uint8)
    inside = heat >= _CONTOUR
    edge = inside & ~_shrunk(inside)
    result[edge] = _VIRIDIS[-1].astype(np.uint8)
    return result


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around = np.pad(mask, 1, mode="edge")
    inner: NDArray[np.bool_] = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:] & mask
    return inner


def picture(overlay: Overlay, strip: Sequence[tuple[Pixels, str]] = ()) -> Image.Image:
    """Return the crop and its overlay side by side; below it other cells with a word on each, if any are given."""
    tile = 2 * SIDE // max(4, len(strip)) if strip else 0
    height = SIDE + (tile + _STRIP_TEXT + 4 if strip else 0)
    image = Image.new("RGB", (2 * SIDE, height), (255, 255, 255))
    image.paste(Image.fromarray(overlay.crop), (0, 0))
    image.paste(Image.fromarray(drawn(overlay.crop, overlay.heat)), (SIDE, 0))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_STRIP_TEXT - 3)
    for place, (crop, word) in enumerate(strip):
        image.paste(Image.fromarray(scale(crop, tile - 2)), (place * tile + 1, SIDE + 2))
        pen.text((place * tile + 2, SIDE + tile + 1), word, fill=(40, 40, 40), font=font)
    return image
