"""Where things stand in the pictures of turn-around: times on one logarithmic axis, days as columns."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from server.cases.turnaround import Turnaround, TurnaroundLine

WIDTH: Final = 260
"""Of the axis of times, in pixels."""
_LEAST, _MOST = 5.0, 4320.0
"""Minutes at its ends: what is outside stands at the end."""
TICKS: Final = ((15, "15 min"), (60, "1 h"), (240, "4 h"), (1440, "24 h"))
"""Minutes, words."""
COLUMN_WIDTH: Final = 900
COLUMN_HEIGHT: Final = 120
_GAP: Final = 0.25


def at(minutes: float) -> float:
    """Return where a time stands on the axis, in pixels."""
    share = math.log(max(_LEAST, min(_MOST, minutes)) / _LEAST) / math.log(_MOST / _LEAST)
    return round(share * WIDTH, 1)


def groups(found: Turnaround) -> list[list[TurnaroundLine]]:
    """Return the lines hospital by hospital."""
    return [list(lines) for _, lines in groupby(found.lines, key=lambda line: line.hospital_id)]


@dataclass(frozen=True)
class Column:
    """A day of the chart: its place, and heights of what was signed in time and late, in pixels."""

    x: float
    width: float
    in_time: float
    late: float
    words: str
    label: str
    """Below it; empty for most days of a long span."""


@dataclass(frozen=True)
class Columns:
    """The chart of days."""

    columns: list[Column]
    most: int
    """Cases that the top stands for."""


def columns(found: Turnaround) -> Columns:
    """Return the days of the span as columns of one scale."""
    most = max((day.in_time + day.late for day in found.by_day), default=0)
    step = COLUMN_WIDTH / max(1, len(found.by_day))
    every = max(1, len(found.by_day) // 7)
    scale = COLUMN_HEIGHT / most if most else 0.0
    drawn = [
        Column(
            x=round(number * step + step * _GAP / 2, 1),
            width=round(step * (1 - _GAP), 1),
            in_time=round(day.in_time * scale, 1),
            late=round(day.late * scale, 1),
            words=f"{day.day:%-d %b %Y}: {day.in_time} in time, {day.late} late",
            label=f"{day.day:%-d %b}" if (len(found.by_day) - 1 - number) % every == 0 else "",
        )
        for number, day in enumerate(found.by_day)
    ]
    return Columns(drawn, most)
