"""What a trained finder makes of proposals: accepts those that show a cell, and puts their boxes right.

Needs numpy only; it runs on every node.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection.proposals import Box, shared_area, touches_edge
from shared.contracts.objects import ObjectKind
from shared.vision.boxes import KINDS, decode

Floats = NDArray[np.float32]

LEAST_SCORE: Final = 0.6
"""Chosen on training and validation fields; see docs/model-quality.md."""
SAME_CELL: Final = 0.4
"""Intersection over union from which two accepted boxes are one cell: the surer one stays."""
REFINED: Final = 0.5
"""Weight of the finder's box against the proposal's: their errors are of different kinds, and partly cancel."""
LEAST_SIDE: Final = 0.12**0.5
"""Longer side, of the field's largest accepted cell: a crop does not show how large it is, and a giant platelet looks
like a cell. What is smaller is booked as what the finder next takes it for. In 200 training and validation fields of
BCCD three accepted boxes were so small; all three are marked as platelets there, and the finder's next guess says so.
By the longer side, since a cell that the field's edge cuts is narrow, not small."""
INSIDE: Final = 0.75
"""Share of the smaller of two accepted boxes within the other from which they are one cell: a lobe of its nucleus."""


@dataclass(frozen=True, slots=True)
class Found:
    """An accepted cell."""

    proposal: int
    """Which of the proposals it was."""
    box: Box
    """Put right by the finder, in pixels of the field."""
    edge: bool
    """Whether the field's edge cuts it."""
    score: float
    """Probability, 0 to 1, that it is a nucleated cell."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A field's accepted cells, top to bottom, and how many proposals were something else."""

    cells: tuple[Found, ...]
    rejected: dict[ObjectKind, int]


def scores(objects: Floats) -> Floats:
    """Return the probabilities of the kinds (N × kinds) from a finder's outputs (N × `boxes.OUTPUTS`)."""
    logits = objects[:, : len(KINDS)].astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def accept(
    proposals: Sequence[Box], objects: Floats, width: int, height: int, *, least_score: float = LEAST_SCORE
) -> Judged:
    """Return what the finder's outputs (N × `boxes.OUTPUTS`) make of N proposed boxes of a field in pixels.

    Of several accepted boxes of one cell the surest stays. Raises ValueError where the outputs are not finite.
    """
    if not np.isfinite(objects).all():
        raise ValueError("the finder's outputs are not finite")
    if not proposals:
        return Judged((), {})
    probabilities = scores(objects)
    sure = probabilities[:, KINDS.index(ObjectKind.CELL)]
    best = probabilities.argmax(axis=1)
    kept: list[Found] = []
    taken: list[Box] = []
    rejected: Counter[ObjectKind] = Counter()
    for number in np.argsort(-sure, kind="stable"):
        score = float(sure[number])
        if score < least_score:
            rejected[_unsure(int(best[number]))] += 1
            continue
        refined = decode(objects[number, len(KINDS) :], proposals[number], width, height)
        # Whether two are one cell is asked of what the finder says: the proposals may be two lobes of one nucleus.
        if any(_same(refined, other) for other in taken):
            continue
        taken.append(refined)
        box = _between(proposals[number], refined)
        kept.append(Found(int(number), box, touches_edge(box, width, height), score))
    largest = max((_side(one.box) for one in kept), default=0)
    small = [one for one in kept if _side(one.box) < LEAST_SIDE * largest]
    others = np.delete(np.arange(len(KINDS)), KINDS.index(ObjectKind.CELL))
    rejected.update(KINDS[others[probabilities[one.proposal, others].argmax()]] for one in small)
    kept = [one for one in kept if one not in small]
    ordered = sorted(kept, key=lambda one: (one.box[1], one.box[0]))
    return Judged(tuple(ordered), {kind: rejected[kind] for kind in KINDS if rejected[kind]})


def _between(proposal: Box, refined: Box) -> Box:
    x0, y0, x1, y1 = (round(old + REFINED * (new - old)) for old, new in zip(proposal, refined, strict=True))
    return x0, y0, x1, y1


def _unsure(best: int) -> ObjectKind:
    """What a proposal is booked as that is no sure cell."""
    return KINDS[best] if KINDS[best] is not ObjectKind.CELL else ObjectKind.BACKGROUND


def _side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _same(one: Box, other: Box) -> bool:
    shared = shared_area(one, other)
    if not shared:
        return False
    areas = _area(one), _area(other)
    return shared >= SAME_CELL * (sum(areas) - shared) or shared >= INSIDE * min(areas)
