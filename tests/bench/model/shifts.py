"""Kinds of shift one by one: what each does to accuracy, and whether the model notices."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from client_node.datasets.catalogue import LabelledCell
from shared.vision import calibration
from shared.vision.colour import SiteView
from shared.vision.preprocessing import Pixels
from tests.bench.model.evaluate import Answers, Row, answers, area, row, share

_HUE: Final = 24
"""Of 256: about 34 degrees."""


def _hue(crop: Pixels) -> Pixels:
    turned = np.array(Image.fromarray(crop).convert("HSV"))
    turned[..., 0] += _HUE  # modulo 256, as hue is
    return np.asarray(Image.fromarray(turned, "HSV").convert("RGB"))


def _gamma(crop: Pixels) -> Pixels:
    return np.asarray(np.round(255.0 * (crop / 255.0) ** 1.8), np.uint8)


def _noise(crop: Pixels) -> Pixels:
    random = np.random.default_rng(int(crop.sum()))
    return np.asarray(np.clip(crop + random.normal(0.0, 20.0, crop.shape), 0, 255), np.uint8)


def _blur(crop: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(crop.shape[0] / 60)))


def _coarse(crop: Pixels) -> Pixels:
    side = crop.shape[0]
    small = Image.fromarray(crop).resize((side // 5, side // 5), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def _jpeg(crop: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=12)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _swapped(crop: Pixels) -> Pixels:
    return np.ascontiguousarray(crop[..., ::-1])


KINDS: Final[dict[str, Callable[[Pixels], Pixels]]] = {
    "half of the dye": SiteView(factors=(0.5, 0.5, 0.5)).coloured,
    "1.6 times the dye": SiteView(factors=(1.6, 1.6, 1.6)).coloured,
    "dye redder (red 0.6, blue 1.5)": SiteView(factors=(0.6, 1.0, 1.5)).coloured,
    "hue turned by 34°": _hue,
    "red and blue swapped": _swapped,
    "underexposed (gamma 1.8)": _gamma,
    "blurred (σ = side / 60)": _blur,
    "a fifth of the resolution": _coarse,
    "noise (σ = 20 of 255)": _noise,
    "JPEG quality 12": _jpeg,
}


def shift_rows(
    folder: Path, train: Sequence[LabelledCell], validation: Sequence[LabelledCell], test: Sequence[LabelledCell]
) -> list[Row]:
    """Return for each kind the accuracy and the AUROC of the shifted against the unchanged test cells.

    There is no goal for a kind: what does not hurt need not be told.
    """
    reference, fitted, plain = answers(folder, train), answers(folder, validation), answers(folder, test)
    adapter = calibration.fit_adapter(fitted.logits, fitted.features, fitted.labels, reference=reference.features)
    inside = _score(adapter, plain)
    rows = [share("unchanged: accuracy", _right(plain))]
    for name, changed in KINDS.items():
        found = answers(folder, test, through=changed)
        outside = _score(adapter, found)
        rows += [
            share(f"{name}: accuracy", _right(found)),
            row(f"{name}: AUROC", area(inside, outside), None, None, len(test), goal=None),
            share(f"{name}: cells beyond the threshold", outside > 1.0),
        ]
    return rows


def _score(adapter: calibration.Adapter, found: Answers) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(calibration.apply(adapter, found.logits, found.features).ood_scores, np.float64)


def _right(found: Answers) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(found.logits.argmax(axis=1) == found.labels)
