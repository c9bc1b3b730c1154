"""What the robust strategies share: the round's updates side by side, as differences from what was sent.

Classifier and finder are judged apart: a hospital without marked fields sends the finder as it received it, which says
nothing about its honesty, and a bad one must not hide in the part that few train.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.federation.strategies.port import Closed, Result, Sent, Update
from server.federation.strategies.spool import Spool
from server.federation.strategies.tensors import FINDER, Tensors
from shared.contracts.errors import NoSpaceError, RunFailedError


class Combine(Protocol):
    """A robust mean."""

    def __call__(self, spool: Spool) -> tuple[NDArray[np.float32], list[int]]:
        """Return (mean of the rows, ``spool.width`` fp32; the rows that had no part in it)."""
        ...


@dataclass(slots=True)
class _Part:
    """Tensors that are judged together. ``names`` in order; ``sites``: whose updates are the spool's rows."""

    sent: Sent
    names: list[str]
    spool: Spool
    sites: list[str] = field(default_factory=list)

    def add(self, update: Update) -> None:
        """Add a row: the update's differences from what was sent."""
        self.spool.append(update.tensors[name].astype(np.float32) - self.sent.tensors[name] for name in self.names)
        self.sites.append(update.site)

    def drop(self) -> None:
        """Take the last row away."""
        self.spool.drop()
        self.sites.pop()


class RobustAggregation:
    """One round; see `Aggregation`.

    ``least``: so many updates a part needs; with fewer the round fails, or the finder stays as it was sent: falling
    back to a plain mean would take the protection away just when it is weakest.
    """

    def __init__(self, sent: Sent, combine: Combine, *, least: int, title: str, folder: Path) -> None:
        self._sent = sent
        self._combine = combine
        self._least = least
        self._title = title
        names = sorted(sent.tensors)
        self._classifier = self._part([name for name in names if not name.startswith(FINDER)], folder)
        self._finder = self._part([name for name in names if name.startswith(FINDER)], folder)
        self._new: Tensors = {}

    @property
    def updates(self) -> int:
        """How many updates lie side by side."""
        return len(self._classifier.sites)

    def add(self, update: Update) -> None:
        """Put an update beside the others; see `Aggregation`."""
        self._classifier.add(update)
        if update.boxes and self._finder.names:
            try:
                self._finder.add(update)
            except NoSpaceError:
                self._classifier.drop()
                raise

    def close(self) -> Closed:
        """Compute the robust means; see `Aggregation`."""
        left_out: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if len(self._finder.sites) >= self._least:
            for site in self._settle(self._finder):
                left_out[site] = f"{self._title} left out its finder, which is farthest from the others'."
        elif self._finder.sites:
            taught = len(self._finder.sites)
            notes = (
                f"The finder stays as it was: {self._title} needs {self._least} hospitals to teach it, not {taught}.",
            )
        if self.updates >= self._least:
            for site in self._settle(self._classifier):
                left_out[site] = f"{self._title} left out its update, which is farthest from the others'."
        return Closed(left_out=left_out, notes=notes)

    def result(self) -> Result:
        """Return the model; see `Aggregation`."""
        if self.updates < self._least:
            raise RunFailedError(
                f"{self._title} needs {self._least} hospitals in a round, {self.updates} took part;"
                " see each hospital's reason in the round's table."
            )
        return Result({**self._sent.tensors, **self._new})

    def _part(self, names: list[str], folder: Path) -> _Part:
        width = sum(math.prod(self._sent.specs[name].shape) for name in names)
        return _Part(self._sent, names, Spool(width, folder))

    def _settle(self, part: _Part) -> list[str]:
        """Add the part's mean difference to what was sent; return the sites that are left out."""
        mean, left_out = self._combine(part.spool)
        begin = 0
        for name in part.names:
            before = self._sent.tensors[name]
            self._new[name] = before + mean[begin : begin + before.size].reshape(before.shape)
            begin += before.size
        return [part.sites[row] for row in left_out]
