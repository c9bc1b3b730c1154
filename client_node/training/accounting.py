"""How much privacy noisy training spends, and how much noise a promise needs: Rényi accounting, by Opacus.

Composition is in Rényi divergence (Mironov 2017; the sampled Gaussian: Mironov, Talwar & Zhang 2019): what several
rounds and runs spend is added up order by order, and only then turned into ε at a δ. The neighbouring data set has one
unit more or less.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from opacus.accountants.analysis import rdp

MOST_NOISE: Final = 100.0
"""Noise multiplier beyond which training learns nothing at all."""
_CLOSE: Final = 2e-3
"""The noise found is at most this share above the least that keeps the promise."""
_ORDERS: Final = (1.5, 2, 2.5, 3, 3.5, *range(4, 32), *range(32, 64, 4), *range(64, 257, 32))
"""Fewer than Opacus' own between whole numbers, which take it long; larger ones for small ε."""


@dataclass(frozen=True, slots=True)
class Noisy:
    """So many steps of DP-SGD: each takes every unit with probability ``sample_rate``."""

    noise_multiplier: float
    sample_rate: float
    steps: int


def epsilon_of(spent: Iterable[Noisy], delta: float) -> float:
    """Return ε at ``delta`` of all of ``spent`` together; 0 for nothing."""
    steps: Counter[tuple[float, float]] = Counter()
    for one in spent:
        steps[one.noise_multiplier, one.sample_rate] += one.steps
    total = sum((_order_by_order(*kind) * count for kind, count in steps.items()), np.zeros(len(_ORDERS)))
    if not total.any():
        return 0.0
    with warnings.catch_warnings():
        # Opacus tells where a wider range of orders might bound tighter: the bound it returns is right all the same.
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        return float(rdp.get_privacy_spent(orders=_ORDERS, rdp=total, delta=delta)[0])


@lru_cache(maxsize=4096)
def _order_by_order(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """Return what one step spends at each of `_ORDERS`."""
    return np.asarray(rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=_ORDERS))


def noise_for(
    epsilon: float, delta: float, *, sample_rate: float, steps: int, before: Sequence[Noisy] = ()
) -> float | None:
    """Return the noise multiplier with which ``steps`` more, after ``before``, spend no more than ``epsilon``.

    None where even `MOST_NOISE` spends more.
    """

    def kept(noise: float) -> bool:
        return epsilon_of([*before, Noisy(noise, sample_rate, steps)], delta) <= epsilon

    low, high = 0.0, 1.0
    while not kept(high):
        low, high = high, high * 2.0
        if low > MOST_NOISE:
            return None
    if low == 0.0:
        low = high
        while kept(low):
            low, high = low / 2.0, low
    while high - low > _CLOSE * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high if high <= MOST_NOISE else None
