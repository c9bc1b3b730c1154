"""What of a model a site has of its own, and when: only what reads its validation cells clearly better is kept.

One choice, made by the same code twice: of a candidate, for the figures that the centre shows before a promotion
(`client_node.training.service`), and of a promoted version, for what then analyses (`client_node.models.trial`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell, as_predicted
from shared.contracts.ontology import CellClass
from shared.vision.calibration import balanced_loss
from shared.vision.site_head import CLEARLY, SiteHead, better, chosen_head

Floats = NDArray[np.float32]

MOST_TAUGHT: Final = 600
"""So many of a site's training cells, by their hashes, fit its head."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a network says of N labelled cells: logits N × K of its shared head, features N × F, N class positions."""

    cells: Sequence[LabelledCell]
    logits: Floats
    features: Floats
    labels: NDArray[np.int64]

    def first(self, count: int) -> "Seen":
        """Return the first ``count`` cells, or all where there are fewer."""
        some = slice(count)
        return Seen(self.cells[some], self.logits[some], self.features[some], self.labels[some])


@dataclass(frozen=True, slots=True)
class Form:
    """A network that the site could run: what it says of training cells (some of them) and of all validation cells."""

    taught: Seen
    validation: Seen


@dataclass(frozen=True, slots=True)
class Kept:
    """What a site keeps of its own."""

    normalisation: bool
    head: SiteHead | None


def seen(cells: Sequence[LabelledCell], logits: Floats, features: Floats, classes: tuple[CellClass, ...]) -> Seen:
    """Return a model's outputs with the labels of the cells, all of which are of ``classes`` or of their subclasses."""
    labels = [classes.index(as_predicted(cell.cls, classes) or cell.cls) for cell in cells]
    return Seen(cells, logits, features, np.asarray(labels, np.int64))


def own_head(taught: Seen, validation: Seen) -> SiteHead | None:
    """Return the site's own head, or None where the shared one reads its validation cells as well.

    A site whose cells taught the model has little to gain: the model knows its training cells by heart.
    """
    head = chosen_head(taught.logits, taught.features, taught.labels, [cell.group for cell in taught.cells])
    helps = head is not None and better(head, validation.logits, validation.features, validation.labels)
    return head if helps else None


def choose(shared: Form, own: Form | None = None) -> Kept:
    """Return what the site keeps: the shared network as it came, a head of its own over it, the network with the site's
    own normalisation (``own``), or that with a head.

    They are asked in this order, and each takes the place of the one kept so far only where its loss on the validation
    cells is clearly less: few cells tell little, and what is simpler goes on being right for longer.
    """
    best, least = Kept(False, None), _loss(shared.validation, None)
    ways = [(Kept(False, head), shared) for head in _heads(shared)]
    ways += [(Kept(True, head), own) for head in (None, *_heads(own))] if own is not None else []
    for kept, form in ways:
        loss = _loss(form.validation, kept.head)
        if loss < CLEARLY * least:
            best, least = kept, loss
    return best


def _heads(form: Form) -> list[SiteHead]:
    head = own_head(form.taught, form.validation)
    return [] if head is None else [head]


def _loss(validation: Seen, head: SiteHead | None) -> float:
    if not len(validation.labels):
        return float("inf")
    return balanced_loss(applied(head, validation.logits, validation.features), validation.labels)


def applied(head: SiteHead | None, logits: Floats, features: Floats) -> Floats:
    """Return the logits (N × K) of a site that has this head, or none."""
    return logits if head is None else head.applied(logits, features)
