"""Central differential privacy: each hospital's update is clipped, and noise is added to their mean (McMahan 2018).

What is hidden is whether any one hospital's update was used or counted as no change at all: the number of hospitals in
a round is no secret. The noised mean is handed to the strategy within as its only update. Those that average see their
updates through the mean alone, so that what they make of it, momentum included, spends nothing more.
"""

import secrets
from collections.abc import Callable
from typing import Final

import numpy as np

from server.federation.privacy import central_epsilon
from server.federation.strategies.average import WeightedAverage
from server.federation.strategies.port import Closed, Result, Sent, Strategy, Update
from server.federation.strategies.tensors import Tensors

ROUNDS: Final = "central_dp/rounds"
"""In `Result.state`: how many rounds were noised so far."""
_MEAN: Final = "the mean"
Entropy = Callable[[], int]


def _system_entropy() -> int:
    return secrets.randbits(128)


class CentralDp:
    """The strategy within, given clipped and noised means; see the module.

    ``clip``: largest L2 norm of one hospital's change over all tensors; ``noise_multiplier``: standard deviation of the
    noise on the sum, in units of ``clip``.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        clip: float,
        noise_multiplier: float,
        delta: float,
        entropy: Entropy = _system_entropy,
    ) -> None:
        self._strategy = strategy
        self._clip = clip
        self._noise = noise_multiplier
        self._delta = delta
        self._entropy = entropy

    def begin(self, sent: Sent) -> "CentralDpAggregation":
        """Begin a round; see `Strategy`."""
        random = np.random.default_rng(self._entropy())
        return CentralDpAggregation(self._strategy, sent, self._clip, self._noise, self._delta, random)


class CentralDpAggregation:
    """One round; see `Aggregation`."""

    def __init__(
        self, strategy: Strategy, sent: Sent, clip: float, noise: float, delta: float, random: np.random.Generator
    ) -> None:
        self._inner = strategy.begin(sent)
        self._mean = WeightedAverage(sent, exponent=0.0)
        self._sent = sent
        self._clip = clip
        self._noise = noise
        self._delta = delta
        self._random = random
        self._rounds = int(sent.state.get(ROUNDS, np.zeros(()))) + 1

    @property
    def updates(self) -> int:
        """How many updates are in the mean."""
        return self._mean.updates

    def add(self, update: Update) -> None:
        """Clip an update and add it; see `Aggregation`. Every one weighs alike, in the finder too."""
        change = {name: array.astype(np.float64) - self._sent.tensors[name] for name, array in update.tensors.items()}
        norm = float(np.sqrt(sum(float(np.vdot(array, array)) for array in change.values())))
        share = min(1.0, self._clip / norm) if norm else 1.0
        clipped = {name: self._sent.tensors[name] + share * array for name, array in change.items()}
        self._mean.add(Update(update.site, clipped, examples=1, boxes=1))

    def close(self) -> Closed:
        """Noise the mean and hand it on; see `Aggregation`."""
        if not self.updates:
            return Closed()
        self._inner.add(Update(_MEAN, self._noised(self._mean.average()), examples=1, boxes=1))
        closed = self._inner.close()
        spent = central_epsilon(self._noise, self._rounds, self._delta)
        count = f"{self._rounds} {'round' if self._rounds == 1 else 'rounds'}"
        note = f"Noise at the centre, {count}: ε {spent:.2f} at δ = {self._delta:g} spent of every hospital."
        return Closed(closed.refused, closed.left_out, (*closed.notes, note), spent)

    def result(self) -> Result:
        """Return what the strategy makes of the noised mean; see `Aggregation`."""
        if not self.updates:
            return self._mean.result()  # raises, with the reason
        result = self._inner.result()
        return Result(result.tensors, {**result.state, ROUNDS: np.asarray(self._rounds, np.float32)})

    def _noised(self, mean: Tensors) -> Tensors:
        deviation = self._noise * self._clip / self.updates
        return {
            name: np.asarray(array + self._random.normal(0.0, deviation, array.shape), np.float32)
            for name, array in mean.items()
        }
