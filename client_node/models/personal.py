"""A site's own head for a model: of its training cells, kept where it reads the validation cells better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.catalogue import LabelledCell, as_predicted
from shared.contracts.ontology import CellClass
from shared.vision.site_head import SiteHead, better, chosen_head

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model says of N labelled cells: logits N × K of the shared head, features N × F, N class positions."""

    cells: Sequence[LabelledCell]
    logits: Floats
    features: Floats
    labels: NDArray[np.int64]


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
