"""Federated averaging weighted by training cells, one update in memory at a time."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.federation.strategies.port import Closed, Result, Sent, Update
from server.federation.strategies.tensors import FINDER, Tensors
from shared.contracts.errors import RunFailedError

EXAMPLE_EXPONENT = 0.0
"""A site's weight is its training cells to this power: 1 is McMahan's FedAvg, 0 lets every hospital count alike. At 1
(and still at 0.5) a laboratory with a tenth of the others' cells is drowned and its stain stays unlearnt; chosen on
validation groups, see docs/adr/0006."""


@dataclass(slots=True)
class WeightedAverage:
    """Running average of updates: ``sum(w·x) / sum(w)`` (McMahan et al. 2017, FedAvg), summed in fp64.

    ``w`` is the site's training cells to the power `EXAMPLE_EXPONENT`; for the finder's tensors its marked cells, so
    that a site without any does not hold the others back. Where no site has any they stay as they were sent.
    """

    sent: Sent
    exponent: float = EXAMPLE_EXPONENT
    weight: float = 0.0
    finder_weight: float = 0.0
    updates: int = 0
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, update: Update) -> None:
        """Add one site's update; see `Aggregation`."""
        weight = float(update.examples) ** self.exponent
        finder_weight = float(update.boxes) ** self.exponent if update.boxes else 0.0
        for name, array in update.tensors.items():
            weighted = np.asarray(array.astype(np.float64) * (finder_weight if name.startswith(FINDER) else weight))
            if name in self._sums:
                self._sums[name] += weighted
            else:
                self._sums[name] = weighted
        self.weight += weight
        self.finder_weight += finder_weight
        self.updates += 1

    def close(self) -> Closed:
        """Every update counts; see `Aggregation`."""
        return Closed()

    def moved(self) -> frozenset[str]:
        """Return the names of the tensors that some site trained."""
        return frozenset(name for name in self._sums if self.finder_weight or not name.startswith(FINDER))

    def average(self) -> Tensors:
        """Return the average of what was added.

        Raises:
            RunFailedError: nothing was.
        """
        if not self.updates:
            raise RunFailedError("No hospital's update can be used in this round; see each hospital's reason.")
        moved = self.moved()
        average: Tensors = {}
        for name, total in self._sums.items():
            weight = self.finder_weight if name.startswith(FINDER) else self.weight
            average[name] = np.asarray(total / weight, np.float32) if name in moved else self.sent.tensors[name]
        return average

    def result(self) -> Result:
        """Return the average as the round's model; see `Aggregation`."""
        return Result(self.average())
