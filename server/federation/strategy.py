"""How site updates become one model: federated averaging weighted by training cells, one update in memory at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from shared.contracts.errors import DataInvalidError
from shared.tensors import check_same_shapes, check_tensors

Tensors = dict[str, NDArray[np.float32]]
MAX_EXAMPLES = 10_000_000
EXAMPLE_EXPONENT = 0.0
"""A site's weight is its training cells to this power: 1 is McMahan's FedAvg, 0 lets every hospital count alike. At 1
(and still at 0.5) a laboratory with a tenth of the others' cells is drowned and its stain stays unlearnt; chosen on
validation groups, see docs/adr/0006."""


def read_tensors(body: bytes) -> Tensors:
    """Return the tensors of a safetensors body as fp32."""
    check_tensors(body)
    return {name: array.astype(np.float32) for name, array in load(body).items()}


def wire_tensors(tensors: Tensors) -> bytes:
    """Return ``tensors`` as they travel: fp16, one safetensors body, in name order.

    Raises:
        DataInvalidError: a value does not fit fp16; the model has diverged.
    """
    with np.errstate(over="ignore"):
        half = {name: np.asarray(tensors[name].astype(np.float16), order="C") for name in sorted(tensors)}
    if not all(np.isfinite(array).all() for array in half.values()):
        raise DataInvalidError("The averaged model holds values that are not finite; lower the learning rate.")
    return bytes(save(half))


def stored_tensors(tensors: Tensors) -> bytes:
    """Return ``tensors`` as they are stored: fp32 safetensors in name order."""
    return bytes(save({name: np.asarray(tensors[name], np.float32, order="C") for name in sorted(tensors)}))


def _check_values(update: Mapping[str, NDArray[np.floating[Any]]]) -> None:
    """Refuse values that could not travel on: one site's would end the run for all at the next round."""
    largest = np.max([np.abs(array).max(initial=0) for array in update.values()], initial=0)
    if not np.isfinite(largest):
        raise DataInvalidError("The update holds values that are not finite.")
    if largest > np.finfo(np.float16).max:
        raise DataInvalidError("The update holds values that are too large for a model; training has diverged there.")


FINDER = "finder."
"""Begin of the names of the tensors that learn from marked fields, which not every hospital has."""


@dataclass(slots=True)
class WeightedAverage:
    """Running average of updates: ``sum(w·x) / sum(w)`` (McMahan et al. 2017, FedAvg), summed in fp64.

    ``w`` is the site's training cells to the power `EXAMPLE_EXPONENT`; for the finder's tensors its marked cells, so
    that a site without any does not hold the others back. Where no site has any they stay as they were sent.

    ``sent`` is the body the round sent out: an update must have the same names and shapes.
    """

    sent: bytes
    weight: float = 0.0
    finder_weight: float = 0.0
    exponent: float = EXAMPLE_EXPONENT
    updates: int = 0
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, body: bytes, examples: int, boxes: int = 0) -> None:
        """Add one site's update, which is input from outside.

        Raises:
            DataInvalidError: names, shapes or values are not what a sound update has; the average is left as it was.
        """
        if not (0 < examples <= MAX_EXAMPLES and 0 <= boxes <= MAX_EXAMPLES):
            raise DataInvalidError("The update claims an impossible number of training cells.")
        check_same_shapes(check_tensors(body, max_bytes=4 * len(self.sent) + 65_536), check_tensors(self.sent))
        update = load(body)
        _check_values(update)
        weight = float(examples) ** self.exponent
        finder_weight = float(boxes) ** self.exponent if boxes else 0.0
        for name, array in update.items():
            weighted = np.asarray(array.astype(np.float64) * (finder_weight if name.startswith(FINDER) else weight))
            if name in self._sums:
                self._sums[name] += weighted
            else:
                self._sums[name] = weighted
        self.weight += weight
        self.finder_weight += finder_weight
        self.updates += 1

    def result(self) -> Tensors:
        """Return the average of what was added (at least one update)."""
        kept = read_tensors(self.sent) if not self.finder_weight else {}
        result: Tensors = {}
        for name, total in self._sums.items():
            if name.startswith(FINDER):
                result[name] = np.asarray(total / self.finder_weight, np.float32) if self.finder_weight else kept[name]
            else:
                result[name] = np.asarray(total / self.weight, np.float32)
        return result
