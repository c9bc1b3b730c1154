"""A section of the bench: what it measures, and how its page says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.bench.model.rows import Row, row


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    work: Path
    """Where logs and results lie."""
    quick: bool = False
    runs: int = 12
    """Openings of the case."""
    keys: int = 60
    """Classes that are set by key."""
    readers: int = 50
    seconds: int = 180
    """How long the readers work, once all have signed in."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a section has found."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts beside the figures, a sentence each."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    method: str
    measure: Callable[[Options], Measured]
    seconds: tuple[int, int]
    """What it takes on 2 cores, about: in a quick run, in a whole one."""


def middle(measure: str, values: list[float], *, goal: float | None) -> Row:
    """Return the median as a row that is to be at most ``goal``; low and high hold nine tenths of the values."""
    low, median, high = (float(part) for part in np.quantile(values, (0.05, 0.5, 0.95)))
    return row(measure, round(median, 1), round(low, 1), round(high, 1), len(values), goal=goal, at_most=True)


def most(measure: str, values: list[float], *, goal: float | None) -> Row:
    """Return the 95th percentile as a row that is to be at most ``goal``, with its bootstrap interval."""
    chance = np.random.default_rng(0)
    draws = [float(np.quantile(chance.choice(values, len(values)), 0.95)) for _ in range(500)]
    low, high = (round(float(part), 1) for part in np.quantile(draws, (0.025, 0.975)))
    value = round(float(np.quantile(values, 0.95)), 1)
    return row(measure, value, low, high, len(values), goal=goal, at_most=True)


def figure(measure: str, value: float, *, goal: float | None, n: int = 1) -> Row:
    """Return one number as a row that is to be at most ``goal``."""
    return row(measure, value, None, None, n, goal=goal, at_most=True)
