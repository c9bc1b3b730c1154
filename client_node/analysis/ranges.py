"""What a site's own good images look like: focus, light and dye, fitted on its labelled images.

Fields and pictures of single cells differ in focus, so each has ranges of its own. They lie in the node's home
(``quality.json``) and do not depend on a model.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.analysis import quality
from client_node.datasets.images import write_atomic
from shared.contracts.analysis import Quality
from shared.contracts.laboratory import Gamut, KnownLaboratory
from shared.vision.preprocessing import balanced, white_point

Pixels = NDArray[np.uint8]

FILE: Final = "quality.json"
LEAST_IMAGES: Final = 20
"""With fewer a site has no range of its own, and the rule file's fixed limits hold."""
_QUANTILES: Final = (0.02, 0.98)
_FOCUS_SHARE: Final = 0.5
"""Of the least sharp good images: blur takes the variance of the Laplacian down by far more."""
_LIGHT: Final = 15.0
"""Grey levels added on both sides."""
_DYE: Final = 1.2
"""Factor on both sides."""
_DARKEST: Final = 0.98
_UNKNOWN_SITE: Final = 1.25
"""Factor on both sides of what other laboratories have: a site that nothing is known of may differ from all of them."""


class Ranges(BaseModel):
    """Of one kind of image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    focus: float
    """Least variance of the Laplacian."""
    brightness: tuple[float, float]
    """Grey level of the background."""
    dye: tuple[float, float]
    """Optical density of the darkest pixels; see `dye`."""


class SiteRanges(BaseModel):
    """The content of ``quality.json``; a kind of which the site has too few images is absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: Ranges | None = None
    cells: Ranges | None = None
    gamut: Gamut | None = None
    """The colours of both."""


@dataclass(frozen=True, slots=True)
class Look:
    """The figures of one image."""

    focus: float
    brightness: float
    dye: float


def look(image: Pixels) -> Look:
    """Return the figures of an image (height × width × RGB uint8)."""
    return Look(quality.focus(image), quality.brightness(image), dye(image))


def dye(image: Pixels) -> float:
    """Return the optical density (natural logarithm, mean of the channels) that 2 % of an image's pixels exceed.

    In a field with white cells those are nuclei. A mean over what is dyed would hardly move: as the dye fades, what is
    left of it is what counts as dyed.
    """
    step = max(1, min(image.shape[:2]) // 160)
    seen = balanced(np.ascontiguousarray(image[::step, ::step]), white_point(image)).astype(np.float64)
    return float(np.quantile(-np.log((seen + 1.0) / 256.0).mean(axis=-1), _DARKEST))


def fit(looks: Iterable[Look]) -> Ranges | None:
    """Return the ranges of good images, or None for too few."""
    found = list(looks)
    if len(found) < LEAST_IMAGES:
        return None

    def between(values: list[float]) -> tuple[float, float]:
        low, high = np.quantile(values, _QUANTILES)
        return float(low), float(high)

    light = between([one.brightness for one in found])
    stain = between([one.dye for one in found])
    return Ranges(
        images=len(found),
        focus=_FOCUS_SHARE * between([one.focus for one in found])[0],
        brightness=(max(0.0, light[0] - _LIGHT), min(255.0, light[1] + _LIGHT)),
        dye=(stain[0] / _DYE, stain[1] * _DYE),
    )


def faults(ranges: Ranges, figures: Quality) -> list[str]:
    """Say what of a smear lies outside the site's ranges."""
    found = []
    own = f"this site's {ranges.images} good images"
    if figures.focus < ranges.focus:
        found.append(f"blurred (focus {figures.focus:.1f}; {own}: at least {ranges.focus:.1f})")
    low, high = ranges.brightness
    if not low <= figures.brightness <= high:
        found.append(f"wrongly exposed (background {figures.brightness:.0f}; {own}: {low:.0f}–{high:.0f})")
    stain = None if figures.dye is None else stain_fault(figures.dye, ranges.dye, own)
    return found if stain is None else [*found, stain]


def known_dye(laboratories: Iterable[KnownLaboratory], *, fields: bool) -> tuple[float, float] | None:
    """Return the dye that any laboratory which taught the model has, widened: the limit of a site without images."""
    told = (one.dye_of_fields if fields else one.dye_of_cells for one in laboratories)
    found = [one for one in told if one is not None]
    if not found:
        return None
    return min(low for low, _ in found) / _UNKNOWN_SITE, max(high for _, high in found) * _UNKNOWN_SITE


def stain_fault(dye: float, limits: tuple[float, float], whose: str) -> str | None:
    """Say what is wrong with a smear's dye, or nothing; ``whose`` says where the limits come from."""
    low, high = limits
    if low <= dye <= high:
        return None
    weak = "weakly" if dye < low else "strongly"
    return f"stained too {weak} (optical density {dye:.2f}; {whose}: {low:.2f}–{high:.2f})"


def load_ranges(home: Path) -> SiteRanges:
    """Return the site's ranges; a file that is absent or damaged tells nothing."""
    try:
        return SiteRanges.model_validate(json.loads((Path(home) / FILE).read_text()))
    except (OSError, ValueError, ValidationError):
        return SiteRanges()


def save_ranges(home: Path, ranges: SiteRanges) -> None:
    """Keep the site's ranges."""
    write_atomic(Path(home) / FILE, ranges.model_dump_json().encode())
