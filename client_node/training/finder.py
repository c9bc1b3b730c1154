"""Trains the finder: which of the places that colour proposes hold a cell, and where exactly it lies.

Only the finder's own tensors learn: the maps it looks at are the classifier's, and stay as the classifier's training
left them.

In a federated round the classifier's tail moves at each hospital to somewhere else, and what the averaged finder will
look through is the average of these tails. Finders that each know their own tail only average badly; so each learns
through the tail as it was received too, which all of them share. After one round of three hospitals (synthetic fields
of three stains, held-out places that show a cell, three seeds) the average knew 0.95 of them instead of 0.63.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client_node.datasets.labelled import LabelledCell, LabelledField
from client_node.training import augment
from client_node.training.cache import Between, Maps
from client_node.training.places import Example, crop, field_examples, single_examples, targets
from shared.contracts.errors import DataInvalidError
from shared.contracts.objects import ObjectKind, kind_of
from shared.contracts.training import Augmentation
from shared.vision.boxes import KINDS
from shared.vision.device import laid
from shared.vision.finder import Finder
from shared.vision.images import load_image
from shared.vision.model import CellModel
from shared.vision.preprocessing import Pixels, to_input, white_point

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

STEPS: Final = 300
ROUND_STEPS: Final = 120
"""Of one federated round."""
MOST_FIELDS: Final = 24
"""So many marked fields, and so many images of single cells, teach in one round."""
MOST_SINGLES: Final = 24
_BATCH: Final = 64
_RATE: Final = 2e-3
_DECAY: Final = 0.02
_BOX_WEIGHT: Final = 4.0
_SMOOTHING: Final = 0.02
_CLIP: Final = 2.0
_CHUNK: Final = 16
_ZERO: Final = (0.0, 0.0, 0.0)
_ONE: Final = (1.0, 1.0, 1.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lesson:
    """N places as the finder meets them."""

    maps: Maps
    """N × F × H × W float16: the tail's."""
    kinds: Labels
    """N positions in `KINDS`."""
    boxes: Floats
    """N × 4, see `shared.vision.boxes.encode`; 0 where there is no cell."""

    @property
    def cells(self) -> int:
        """How many of the places show a cell."""
        return int((self.kinds == KINDS.index(ObjectKind.CELL)).sum())


def lessons(
    model: CellModel,
    fields: Sequence[LabelledField],
    singles: Sequence[LabelledCell],
    *,
    size: int,
    random: np.random.Generator,
    between: Between,
    tails: Sequence[nn.Module] = (),
) -> Iterator[Lesson]:
    """Yield the places of each field, then of each image of a single cell, as ``model`` sees them now.

    With ``tails`` each image yields a lesson more for each of them: the same places through that tail instead of the
    model's own. An image that cannot be read, or teaches nothing, is left out. ``between`` is called before each image.
    """
    eye = _Eye(model, (model.tail, *tails), size, random)
    for field in fields:
        yield from _lessons(eye, field.path, between, _of_field(field, random))
    for cell in singles:
        yield from _lessons(eye, cell.path, between, _of_single(cell, random))


Placing = Callable[[Pixels], list[Example]]


def _of_field(field: LabelledField, random: np.random.Generator) -> Placing:
    return lambda image: field_examples(image, field.objects, random, complete=field.complete)


def _of_single(cell: LabelledCell, random: np.random.Generator) -> Placing:
    return lambda image: single_examples(image, kind_of(cell.cls), random)


def _lessons(eye: "_Eye", path: Path, between: Between, placing: Placing) -> Iterator[Lesson]:
    between()
    try:
        image = load_image(path)
    except DataInvalidError as error:
        log.warning("training.field_skipped", reason=error.message)
        return
    examples = placing(image)
    if examples:
        kinds, boxes = targets(examples)
        for maps in eye.maps(image, examples):
            yield Lesson(maps, kinds, boxes)


class _Eye:
    """A model's trunk, and the tails through which its maps are looked at."""

    def __init__(self, model: CellModel, tails: Sequence[nn.Module], size: int, random: np.random.Generator) -> None:
        self._trunk = model.trunk
        self._tails = tails
        self._size = size
        self._random = random
        self._device = next(model.parameters()).device
        self._mean = torch.tensor(model.entry.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(model.entry.std, device=self._device).view(1, 3, 1, 1)

    def maps(self, image: Pixels, examples: Sequence[Example]) -> list[Maps]:
        """Return each tail's maps of the places."""
        found: list[list[Maps]] = [[] for _ in self._tails]
        white = white_point(image)
        for start in range(0, len(examples), _CHUNK):
            pixels = self._pixels(image, examples[start : start + _CHUNK], white)
            with torch.inference_mode():
                cut = self._trunk(laid((pixels - self._mean) / self._std, self._device))
                for tail, parts in zip(self._tails, found, strict=True):
                    parts.append(tail(cut).contiguous().cpu().numpy().astype(np.float16))
        return [np.concatenate(parts) for parts in found]

    def _pixels(self, image: Pixels, chunk: Sequence[Example], white: NDArray[np.float64]) -> Tensor:
        """Return the places that analysis would propose as they are, the others recoloured."""
        seen = np.stack([to_input(crop(image, one, white), self._size, _ZERO, _ONE) for one in chunk])
        pixels = torch.from_numpy(seen).to(self._device)
        other = augment.recoloured(pixels, augment.STRENGTHS[Augmentation.STRONG], self._random)
        plain = torch.tensor([one.plain for one in chunk], device=self._device)[:, None, None, None]
        return torch.where(plain, pixels, other)


def teach(
    model: CellModel,
    fields: Sequence[LabelledField],
    singles: Sequence[LabelledCell],
    *,
    received: nn.Module,
    size: int,
    seed: int,
    between: Between,
) -> float | None:
    """Train the model's finder for one round on some of what a site has, on others under another seed.

    ``received``: the tail as it was before the round, see the module. Returns the mean loss; None, with the finder as
    it was, where none of the chosen images shows a cell.
    """
    random = np.random.default_rng(seed)
    chosen = _drawn(fields, random)
    others = [singles[place] for place in random.permutation(len(singles))[:MOST_SINGLES]]
    parts = list(lessons(model, chosen, others, size=size, random=random, between=between, tails=[received]))
    if not any(part.cells for part in parts):
        return None
    return train_finder(model.finder, joined(parts), seed=seed, between=between, steps=ROUND_STEPS)


def _drawn(fields: Sequence[LabelledField], random: np.random.Generator) -> list[LabelledField]:
    """Return some of the fields; those that are marked only partly are at most half of what a round takes."""
    mixed = [fields[place] for place in random.permutation(len(fields))]
    partly = [field for field in mixed if not field.complete][: MOST_FIELDS // 2]
    return [field for field in mixed if field.complete][: MOST_FIELDS - len(partly)] + partly


def joined(parts: Sequence[Lesson]) -> Lesson:
    """Return the places of all ``parts``, which are at least one."""
    return Lesson(
        np.concatenate([one.maps for one in parts]),
        np.concatenate([one.kinds for one in parts]),
        np.concatenate([one.boxes for one in parts]),
    )


def train_finder(finder: Finder, lesson: Lesson, *, seed: int, between: Between, steps: int = STEPS) -> float:
    """Train ``finder`` in place; return the mean loss.

    Cross-entropy over the kinds, half of each batch cells, and smooth L1 over the boxes of cells. The same seed gives
    the same tensors on the same machine. ``between`` is called before each step.
    """
    random = np.random.default_rng(seed)
    maps, kinds, boxes = lesson.maps, lesson.kinds, lesson.boxes
    shares = _shares(kinds)
    device = next(finder.parameters()).device
    optimiser = torch.optim.AdamW(finder.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, steps))
    total = 0.0
    for _ in range(steps):
        between()
        chosen = random.choice(len(kinds), _BATCH, p=shares)
        which = int(random.integers(0, 8))
        batch = turned(torch.from_numpy(maps[chosen]).to(device).float(), which)
        found = finder(batch)
        goal = torch.from_numpy(turned_boxes(boxes[chosen], which)).to(device)
        loss = _loss(found, torch.from_numpy(kinds[chosen]).to(device), goal)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(finder.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
    return total / steps


def _shares(kinds: Labels) -> NDArray[np.float64]:
    """Return how often each example is drawn: half of a batch are cells, rarer kinds of the rest more often."""
    counts = np.bincount(kinds, minlength=len(KINDS)).astype(np.float64)
    weights = np.sqrt(counts)
    position = KINDS.index(ObjectKind.CELL)
    weights[position] = max(1.0, weights.sum() - weights[position])
    shares: NDArray[np.float64] = (weights / np.maximum(counts, 1.0))[kinds]
    shares /= shares.sum()
    return shares


def _pace(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 20)) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _loss(found: Tensor, kinds: Tensor, boxes: Tensor) -> Tensor:
    loss = functional.cross_entropy(found[:, : len(KINDS)], kinds, label_smoothing=_SMOOTHING)
    cells = kinds == KINDS.index(ObjectKind.CELL)
    if bool(cells.any()):
        off = functional.smooth_l1_loss(found[cells, len(KINDS) :], boxes[cells], beta=0.1)
        loss = loss + _BOX_WEIGHT * off
    return loss


def turned(maps: Tensor, which: int) -> Tensor:
    """Return one of the eight symmetries of the square."""
    if which & 1:
        maps = maps.flip(2)
    if which & 2:
        maps = maps.flip(3)
    return (maps.transpose(2, 3) if which & 4 else maps).contiguous()


def turned_boxes(boxes: Floats, which: int) -> Floats:
    """Return box values (N × 4) as they are after `turned`."""
    result = boxes.copy()
    if which & 1:
        result[:, 1] *= -1
    if which & 2:
        result[:, 0] *= -1
    return np.ascontiguousarray(result[:, [1, 0, 3, 2]]) if which & 4 else result
