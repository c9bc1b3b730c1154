"""Trimmed mean (Yin et al. 2018): value by value, the largest and the smallest changes are left out."""

from pathlib import Path
from typing import Final

import numpy as np
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from numpy.typing import NDArray

from server.federation.strategies.port import Sent
from server.federation.strategies.registry import TrimmedMeanParameters
from server.federation.strategies.robust import RobustAggregation
from server.federation.strategies.spool import Spool

_BETWEEN: Final = 0.25
"""Flower cuts ``int(share · n)``: a quarter more than a whole number gives that number whatever the rounding, and stays
under the half that it refuses."""


class TrimmedMean:
    """See the module. Flower's own cut rounds down, to none of fewer than five hospitals at a fifth; ours is one."""

    def __init__(self, parameters: TrimmedMeanParameters, folder: Path) -> None:
        self._parameters = parameters
        self._folder = folder

    def begin(self, sent: Sent) -> RobustAggregation:
        """Begin a round; see `Strategy`."""
        given = self._parameters
        return RobustAggregation(sent, self._mean, least=given.least_sites, title=given.title, folder=self._folder)

    def _mean(self, spool: Spool) -> tuple[NDArray[np.float32], list[int]]:
        share = (trimmed(spool.rows, self._parameters.trim_share) + _BETWEEN) / spool.rows
        mean = np.empty(spool.width, np.float32)
        for columns, block in spool.strips():
            mean[columns] = trim_mean(block, share)
        return mean, []


def trimmed(sites: int, share: float) -> int:
    """Return how many of ``sites`` (≥ 3) are left out at each end: ``share`` (< 0.5) of them, rounded down, ≥ 1."""
    return max(1, int(share * sites + 1e-9))
