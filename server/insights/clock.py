"""The time that a reading takes: only while something happens."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

IDLE: Final = timedelta(seconds=60)
"""A longer silence is time spent elsewhere, and counts nothing."""


def active_seconds(moments: Iterable[datetime]) -> float:
    """Return the seconds between moments at which somebody was at work, gaps over `IDLE` left out."""
    gaps = (later - earlier for earlier, later in pairwise(sorted(moments)))
    return sum((gap.total_seconds() for gap in gaps if gap <= IDLE), 0.0)
