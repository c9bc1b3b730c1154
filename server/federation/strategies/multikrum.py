"""Multi-Krum (Blanchard et al. 2017): the mean of the n − f updates whose nearest neighbours are nearest.

Flower's `select_multikrum` scores and selects. It wants all updates in memory; all it uses of them are their distances,
so it is given n points of n values that lie exactly as far from each other as the updates do: memory is O(n²), not
O(n·d).
"""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from numpy.typing import NDArray

from server.federation.strategies.port import Sent
from server.federation.strategies.registry import MultiKrumParameters
from server.federation.strategies.robust import RobustAggregation
from server.federation.strategies.spool import Spool


class MultiKrum:
    """See the module."""

    def __init__(self, parameters: MultiKrumParameters, folder: Path) -> None:
        self._parameters = parameters
        self._folder = folder

    def begin(self, sent: Sent) -> RobustAggregation:
        """Begin a round; see `Strategy`."""
        given = self._parameters
        return RobustAggregation(sent, self._mean, least=given.least_sites, title=given.title, folder=self._folder)

    def _mean(self, spool: Spool) -> tuple[NDArray[np.float32], list[int]]:
        chosen = select(gram(spool), bad=self._parameters.byzantine_sites)
        mean = np.empty(spool.width, np.float32)
        for columns, block in spool.strips():
            mean[columns] = block[chosen].mean(axis=0)
        return mean, sorted(set(range(spool.rows)) - set(chosen))


def gram(spool: Spool) -> NDArray[np.float64]:
    """Return the updates' inner products, N × N fp64."""
    products = np.zeros((spool.rows, spool.rows))
    for _, block in spool.strips():
        wide = block.astype(np.float64)
        products += wide @ wide.T
    return products


def points(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return N points of N values with these inner products (N × N, positive semidefinite), hence these distances.

    By the eigenvectors of the *cosines*: of the products themselves, one huge update's rounding error would be larger
    than the others' distances.
    """
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    scale = np.where(norms > 0, norms, 1.0)
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    placed: NDArray[np.float64] = norms[:, None] * (vectors * np.sqrt(np.maximum(values, 0.0)))
    return placed


def select(products: NDArray[np.float64], *, bad: int) -> list[int]:
    """Return the rows, ascending, of the N − ``bad`` updates that Flower's Multi-Krum selects."""
    contents = [RecordDict({"update": ArrayRecord({"point": Array(point)})}) for point in points(products)]
    rows = {id(content): row for row, content in enumerate(contents)}
    selected = select_multikrum(contents, num_malicious_nodes=bad, num_nodes_to_select=len(contents) - bad)
    return sorted(rows[id(content)] for content in selected)
