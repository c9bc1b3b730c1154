"""Figures for tables that are also pictures, and lines that are drawn here rather than by a script."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

from shared.contracts.agreement import Agreement
from shared.statistics import clopper_pearson

_MARGIN: Final = 4


def heat(value: float | None) -> str:
    """Return the CSS class of a heat cell: ten steps from 0 to 1, none where there is no figure."""
    return "" if value is None else f"heat-{min(9, max(0, int(value * 10)))}"


def interval(fraction: float | None, total: int | None, digits: int = 1) -> str:
    """Return the exact 95 % interval of a share of ``total``, in percent: ``91.2–96.4``."""
    if fraction is None or not total:
        return ""
    low, high = clopper_pearson(round(fraction * total), total)
    return f"{low:.{digits}f}–{high:.{digits}f}"


@dataclass(frozen=True)
class Trend:
    """A line over equal steps, in a frame of `WIDTH` × `HEIGHT` with a margin for its dots."""

    path: str
    """SVG path; a step without a figure is a gap."""
    dots: list[tuple[float, float, int]]
    """x, y and the step."""
    top: float
    """The figure at the frame's upper edge; 0 is its lower one."""
    width: int
    height: int


def trend(values: Sequence[float | None], *, top: float | None = None, width: int = 240, height: int = 56) -> Trend:
    """Return ``values`` as a line from 0 to ``top`` (None: a round figure above the greatest)."""
    known = [value for value in values if value is not None]
    most = _round_up(max(known, default=0.0)) if top is None else top
    step = (width - 2 * _MARGIN) / max(1, len(values) - 1)
    dots = [
        (round(_MARGIN + at * step, 1), round(height - _MARGIN - (height - 2 * _MARGIN) * min(1, value / most), 1), at)
        for at, value in enumerate(values)
        if value is not None
    ]
    parts, last = list[str](), -2
    for x, y, at in dots:
        parts.append(f"{'L' if at == last + 1 else 'M'}{x:.1f} {y:.1f}")
        last = at
    return Trend("".join(parts), dots, most, width, height)


def _round_up(value: float) -> float:
    """Return the least of 1, 2, 5 times a power of ten that is not below ``value``; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def kappa_mark(agreement: Agreement) -> dict[str, float] | None:
    """Return where a kappa and its interval stand on a scale of 0 to 100 (below 0 at its edge); None without one."""
    if agreement.kappa is None or agreement.low is None or agreement.high is None:
        return None
    places = {"low": agreement.low, "at": agreement.kappa, "high": agreement.high}
    return {name: round(100 * min(1.0, max(0.0, value)), 1) for name, value in places.items()}
