"""Refuses updates that are far larger than the others', for every strategy; keeps no more than two of them back.

A bad site's easiest harm to an average is size: with n hospitals an update n times too large is as strong as all of
them. The measure is the median of the norms of the round's updates and of the last round's median: as soon as it
stands on three, updates are judged as they come. Until then the first ones are held back, so that the very first cannot
slip through. With two hospitals in the first round there is no telling who is right, and nobody is refused.
"""

import statistics
from collections.abc import Mapping
from typing import Final

import numpy as np

from server.federation.strategies.port import Aggregation, Closed, Result, Sent, Strategy, Update
from server.federation.strategies.tensors import FINDER
from shared.contracts.errors import DataInvalidError, HematovisionError

KEPT: Final = "norm/"
"""Begin of the names in `Result.state`; after it stands the part."""
_ENOUGH: Final = 3
_CLASSIFIER, _FINDER = "classifier", "finder"
Norms = Mapping[str, float]


class Guarded:
    """The strategy within, behind the guard."""

    def __init__(self, strategy: Strategy, limit: float) -> None:
        self._strategy = strategy
        self._limit = limit

    def begin(self, sent: Sent) -> "GuardedAggregation":
        """Begin a round; see `Strategy`."""
        return GuardedAggregation(self._strategy.begin(sent), sent, self._limit)


class GuardedAggregation:
    """One round; see `Aggregation`."""

    def __init__(self, inner: Aggregation, sent: Sent, limit: float) -> None:
        self._inner = inner
        self._sent = sent
        self._limit = limit
        known = [part for part in (_CLASSIFIER, _FINDER) if KEPT + part in sent.state]
        self._before = {part: float(sent.state[KEPT + part]) for part in known}
        self._seen: dict[str, list[float]] = {_CLASSIFIER: [], _FINDER: []}
        self._kept: dict[str, list[float]] = {_CLASSIFIER: [], _FINDER: []}
        self._held: list[tuple[Update, Norms]] = []
        self._refused: dict[str, str] = {}

    @property
    def updates(self) -> int:
        """How many updates are taken, those held back included."""
        return self._inner.updates + len(self._held)

    def add(self, update: Update) -> None:
        """Judge an update, or hold it back until there is enough to judge by; see `Aggregation`."""
        # A norm of 0 has no say: a site that changed nothing tells nothing about size, and needs no judging.
        norms = {part: norm for part, norm in part_norms(update, self._sent).items() if norm > 0}
        for part, norm in norms.items():
            self._seen[part].append(norm)
        if _CLASSIFIER in norms and self._votes(_CLASSIFIER) < _ENOUGH:
            self._held.append((update, norms))
            return
        if self._votes(_CLASSIFIER) >= _ENOUGH:
            self._release()
        self._take(update, norms)

    def close(self) -> Closed:
        """Judge what is still held back, by the last round alone if need be; see `Aggregation`."""
        self._release()
        closed = self._inner.close()
        return Closed({**self._refused, **closed.refused}, closed.left_out, closed.notes)

    def result(self) -> Result:
        """Return the strategy's result, and the medians for the next round; see `Aggregation`."""
        result = self._inner.result()
        medians = {part: statistics.median(norms) for part, norms in self._kept.items() if norms}
        kept = {KEPT + part: np.asarray(norm, np.float32) for part, norm in (self._before | medians).items()}
        return Result(result.tensors, result.state | kept)

    def _release(self) -> None:
        held, self._held = self._held, []
        for update, norms in held:
            try:
                self._take(update, norms)
            except HematovisionError as error:
                self._refused[update.site] = error.message

    def _take(self, update: Update, norms: Norms) -> None:
        if reason := self._too_large(norms):
            raise DataInvalidError(reason)
        self._inner.add(update)
        for part, norm in norms.items():
            self._kept[part].append(norm)

    def _votes(self, part: str) -> int:
        return len(self._seen[part]) + (part in self._before)

    def _measure(self, part: str) -> float | None:
        before = [self._before[part]] if part in self._before else []
        if self._votes(part) >= _ENOUGH:
            return statistics.median([*self._seen[part], *before])
        return before[0] if before else None

    def _too_large(self, norms: Norms) -> str:
        for part, norm in norms.items():
            measure = self._measure(part)
            if measure is not None and norm > self._limit * measure:
                return (
                    f"Its update is {norm / measure:.0f} times as large as the median; {self._limit:g} times are"
                    " allowed. Look at that hospital's labels and software."
                )
        return ""


def part_norms(update: Update, sent: Sent) -> dict[str, float]:
    """Return the L2 norms of what an update changed: of the classifier, and of the finder if it was taught."""
    squares = dict.fromkeys((_CLASSIFIER, _FINDER) if update.boxes else (_CLASSIFIER,), 0.0)
    for name, array in update.tensors.items():
        part = _FINDER if name.startswith(FINDER) else _CLASSIFIER
        if part in squares:
            difference = array.astype(np.float64) - sent.tensors[name]
            squares[part] += float(np.vdot(difference, difference))
    return {part: float(np.sqrt(square)) for part, square in squares.items()}
