"""A heat-map head on whole fields beside the proposals and the trained step after them, by the same grouped folds.

The trunk is the classifier's, frozen, up to where its maps are an eighth or a sixteenth as wide as the field; the head
learns from the white cells' boxes in the other folds' fields. Its threshold is chosen by the training folds alone: a
head trained on three of the four is asked about the fourth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client_node.analysis.detection import overlap
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledField
from client_node.training import augment
from client_node.training.finder import _pace, turned
from shared.contracts.training import Augmentation, Recipe
from shared.vision import preprocessing
from shared.vision.backbones import BackboneEntry
from shared.vision.images import load_image
from shared.vision.model import CellModel
from tests.bench.model.evaluate import Row, row, share
from tests.bench.model.finding import Looked, _folds, counted
from tests.bench.model.folds import FOLDS
from tests.bench.model.heatmap_head import HeatHead, goals, loss_of, peaks
from tests.bench.model.heatmap_time import FieldTrunk, exported, time_rows
from tests.bench.model.train import say

Maps = NDArray[np.float16]
Floats = NDArray[np.float32]

STRIDES: Final = (8, 16)
LOOKS: Final = 3
"""So many looks at each field: as it is, and in other colours; each is turned and mirrored besides."""
STEPS: Final = 400
THRESHOLDS: Final = tuple(round(0.1 + 0.05 * number, 2) for number in range(15))
TIMED: Final = 20
"""So many fields are timed."""
_BATCH: Final = 8
_RATE: Final = 3e-3
_DECAY: Final = 0.02
_CLIP: Final = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """N fields of one size as the frozen trunk sees them at one stride."""

    stride: int
    maps: Maps
    """N × `LOOKS` × F × H × W; look 0 is the plain one."""
    wanted: Floats
    """N × `heatmap_head.OUTPUTS` × H × W."""

    def of(self, chosen: NDArray[np.intp]) -> "Seen":
        """Return some of the fields."""
        return Seen(self.stride, self.maps[chosen], self.wanted[chosen])


def seen(
    model: CellModel, fields: Sequence[LabelledField], *, strides: Sequence[int] = STRIDES, looks: int = LOOKS
) -> dict[int, Seen]:
    """Return ``fields``, all of one size, as ``model`` sees them at each of ``strides``."""
    trunk = FieldTrunk(model, strides)
    width, height = fields[0].width, fields[0].height
    session = exported(trunk, (height, width), [f"stride{stride}" for stride in strides])
    random = np.random.default_rng(0)
    maps: dict[int, list[Maps]] = {stride: [] for stride in strides}
    for number, field in enumerate(fields):
        views = [session.run(None, {"images": view[None]}) for view in _views(field.path, model.entry, looks, random)]
        for place, stride in enumerate(strides):
            maps[stride].append(np.concatenate([view[place] for view in views]).astype(np.float16))
        if (number + 1) % 50 == 0:
            say(f"heat-map: {number + 1} of {len(fields)} fields seen")
    return {
        stride: Seen(
            stride,
            np.stack(found),
            np.stack([goals(field.cells, found[0].shape[2], found[0].shape[3], stride) for field in fields]),
        )
        for stride, found in maps.items()
    }


def _views(path: Path, entry: BackboneEntry, looks: int, random: np.random.Generator) -> Floats:
    """Return the field as analysis would balance it, and in other colours: normalised, looks × 3 × H × W."""
    image = load_image(path)
    pixels = torch.from_numpy(preprocessing.balanced(image, preprocessing.white_point(image))).permute(2, 0, 1)[None]
    plain = pixels.float() / 255.0
    others = augment.recoloured(
        plain.expand(looks - 1, -1, -1, -1), augment.STRENGTHS[Augmentation.STRONG], random
    )  # fmt: skip
    mean, std = (np.asarray(value, np.float32).reshape(3, 1, 1) for value in (entry.mean, entry.std))
    return np.asarray((torch.cat([plain, others]).numpy() - mean) / std, np.float32)


def train_head(fields: Seen, *, seed: int, steps: int = STEPS) -> HeatHead:
    """Return a head trained on ``fields``; the same seed gives the same head on the same machine."""
    head = HeatHead(fields.maps.shape[2], seed=seed)
    random = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, steps))
    for _ in range(steps):
        chosen = random.integers(0, len(fields.maps), _BATCH)
        look = random.integers(0, fields.maps.shape[1], _BATCH)
        which = int(random.integers(0, 8))
        batch = turned(torch.from_numpy(fields.maps[chosen, look]).float(), which)
        loss = loss_of(head(batch), turned_goals(torch.from_numpy(fields.wanted[chosen]), which))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
    return head.eval()


def turned_goals(wanted: Tensor, which: int) -> Tensor:
    """Return the goals (N × `heatmap_head.OUTPUTS` × H × W) as they are after `turned`."""
    result = turned(wanted, which).clone()
    if which & 4:
        result = result[:, [0, 2, 1, 4, 3]]
    # Mirrored first, then transposed: what was x is y then.
    down, across = (3, 4) if which & 4 else (4, 3)
    if which & 1:
        result[:, down] *= -1
    if which & 2:
        result[:, across] *= -1
    return result


def answered(head: HeatHead, fields: Seen) -> list[Floats]:
    """Return the head's output for each field as it is."""
    with torch.inference_mode():
        return [head(torch.from_numpy(maps[:1]).float())[0].numpy() for maps in fields.maps]


def threshold(outputs: Sequence[Floats], fields: Sequence[LabelledField], stride: int) -> float:
    """Return the threshold with the highest F1 of recall and precision on ``fields``."""
    scores = []
    for least in THRESHOLDS:
        hit, right = counted(looked(outputs, fields, stride, least))
        scores.append(2 * hit.sum() / (len(hit) + len(right)))
    best = np.flatnonzero(np.isclose(scores, max(scores)))
    return THRESHOLDS[int(best[len(best) // 2])]  # the middle of those as good


def looked(outputs: Sequence[Floats], fields: Sequence[LabelledField], stride: int, least: float) -> list[Looked]:
    """Return what is found in each field above the threshold."""
    return [
        Looked(
            field.path,
            tuple(field.cells),
            tuple(box for _, box in peaks(output, stride, field.width, field.height, least=least)),
        )
        for output, field in zip(outputs, fields, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Judged:
    """What heads found in fields that they never saw, and the last of these heads."""

    fields: list[Looked]
    head: HeatHead
    least: float


def by_folds(fields: Sequence[LabelledField], views: Seen, *, steps: int = STEPS) -> Judged:
    """Return what is found in each field by a head, and a threshold, that other folds' fields taught."""
    fold = _folds(fields)
    found: list[Looked] = []
    for number in range(FOLDS):
        inner = fold == (number + 1) % FOLDS
        rest, held = np.flatnonzero((fold != number) & ~inner), np.flatnonzero(fold == number)
        asked = np.flatnonzero(inner)
        trial = answered(train_head(views.of(rest), seed=1, steps=steps), views.of(asked))
        least = threshold(trial, [fields[int(place)] for place in asked], views.stride)
        head = train_head(views.of(np.flatnonzero(fold != number)), seed=1, steps=steps)
        judged = looked(answered(head, views.of(held)), [fields[int(place)] for place in held], views.stride, least)
        hit, right = counted(judged)
        say(
            f"heat-map, stride {views.stride}, fold {number + 1} of {FOLDS}: threshold {least}, "
            f"{hit.sum()} of {len(hit)} found, {(~right).sum()} too many"
        )
        found += judged
    return Judged(found, head, least)


def agreement(fields: Sequence[Looked]) -> tuple[float, int]:
    """Return the mean intersection over union of the true cells with what was found best, of those found, and their
    number."""
    best = [max((overlap(cell, box) for box in field.found), default=0.0) for field in fields for cell in field.truth]
    found = [value for value in best if value > 0]
    return (float(np.mean(found)), len(found)) if found else (0.0, 0)


def heatmap_rows(
    model: CellModel, recipe: Recipe, home: Path, *, strides: Sequence[int] = STRIDES, steps: int = STEPS
) -> list[Row]:
    """Return recall, precision and boxes' agreement by grouped folds for each stride, and the time a field.

    ``model`` must not have seen these fields; its layers stay as they are. The rows of `finding.finding_rows`, for the
    same model, are what these stand beside; their time a field is among these.
    """
    fields = [field for field in Catalogue(home).fields() if field.objects]
    rows, heads = [], dict[int, Judged]()
    for stride, views in seen(model, fields, strides=strides).items():
        heads[stride] = by_folds(fields, views, steps=steps)
        rows += finding_of(f"heat-map at 1/{stride}", heads[stride].fields)
    timed = [(stride, found.head, found.least) for stride, found in heads.items()]
    return rows + time_rows(model, recipe, [field.path for field in fields[:TIMED]], timed)


def finding_of(name: str, found: Sequence[Looked]) -> list[Row]:
    """Return the rows of what was found in fields."""
    hit, right = counted(found)
    mean, count = agreement(found)
    return [
        share(f"white cells found, centre recall, 5-fold, {name}", hit),
        share(f"white cells found, centre precision, 5-fold, {name}", right),
        row(f"boxes' intersection over union with the reader's, {name}", mean, None, None, count, goal=None),
    ]
