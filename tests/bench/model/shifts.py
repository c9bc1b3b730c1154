"""Kinds of shift one by one: what each does to accuracy, and whether the model notices."""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from client_node.analysis.model import LoadedModel
from shared.vision.colour import SiteView
from shared.vision.preprocessing import Pixels
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers, loaded
from tests.bench.model.rows import Hits, Scores, area_row, share
from tests.bench.model.section import Measured, Section

_SHIFTED: Final = 300
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


def measure(bench: Bench) -> Measured:
    """Measure each kind of shift by itself, at a hospital that knows PBC's cells.

    There is no goal for a kind: what does not hurt need not be told.
    """
    cells = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_SHIFTED]
    model = loaded(bench.at("both", "pbc"))
    plain = answers(model, cells)
    inside = _score(model, plain)
    rows = [share("unchanged: accuracy", _right(plain))]
    for name, changed in KINDS.items():
        found = answers(model, cells, through=changed)
        outside = _score(model, found)
        rows += [
            share(f"{name}: accuracy", _right(found)),
            area_row(f"{name}: AUROC", inside, outside),
            share(f"{name}: cells beyond the threshold", outside > 1.0),
        ]
    return Measured(rows)


def _score(model: LoadedModel, found: Answers) -> Scores:
    return np.asarray(model.calibrated(found.logits, found.features).ood_scores, np.float64)


def _right(found: Answers) -> Hits:
    return np.asarray(found.logits.argmax(axis=1) == found.labels)


SECTION: Final = Section(
    name="shifts",
    title="Kinds of shift, one by one",
    measure=measure,
    version=1,
    seconds=(90, 90),
    models=("both",),
    method=(
        "300 test cells of PBC, changed in one way each, before the model of both sources by its ONNX file: what the "
        "change does to accuracy, and how well the feature distance tells changed cells from unchanged ones."
    ),
)
