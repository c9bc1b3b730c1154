"""How good a model is on a site's own cells, in figures that may leave the site."""

import numpy as np
from numpy.typing import NDArray

from shared.contracts.ontology import CellClass
from shared.contracts.training import SiteMetrics

Floats = NDArray[np.float32]


def site_metrics(logits: Floats, labels: NDArray[np.int64], classes: tuple[CellClass, ...]) -> SiteMetrics:
    """Return the figures of N cells: ``logits`` N × K in the order of ``classes``, ``labels`` N class positions.

    The macro F1 is the mean over the classes that the site has or the model predicted. N may be 0.
    """
    if not len(labels):
        return SiteMetrics(n=0, loss=0.0, accuracy=0.0, macro_f1=0.0)
    scores = logits.astype(np.float64)
    top = scores.max(axis=1)
    normaliser = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    loss = float((normaliser - scores[np.arange(len(labels)), labels]).mean())
    predicted = scores.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    support, claimed, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    present = (support + claimed) > 0
    f1 = 2.0 * right[present] / (support + claimed)[present]
    own = [position for position in range(len(classes)) if support[position]]
    return SiteMetrics(
        n=len(labels),
        loss=loss,
        accuracy=float(right.sum() / len(labels)),
        macro_f1=float(f1.mean()),
        recall={classes[position]: float(right[position] / support[position]) for position in own},
        support={classes[position]: int(support[position]) for position in own},
    )
