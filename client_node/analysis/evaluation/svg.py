"""Charts as SVG: a confusion matrix, a reliability diagram, a risk–coverage curve, measures with their intervals.

Written by hand because the install without torch must stay small (matplotlib and what it needs are 60 MB), and because
a chart's text must stay text. Each chart is a whole file and may stand in a page as it is: its names are prefixed, its
colours follow the reader's theme, its title and description are read aloud.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Hits = NDArray[np.bool_]

_STYLE: Final = (
    ".hv-chart{font:13px system-ui,sans-serif;font-variant-numeric:tabular-nums}"
    ".hv-chart .hv-paper{fill:#fbfbfa}.hv-chart text{fill:#22262b}.hv-chart .hv-quiet{fill:#6a717a}"
    ".hv-chart .hv-line{stroke:#c9ced4;stroke-width:1;fill:none}"
    ".hv-chart .hv-mark{stroke:#20706b;stroke-width:2;fill:none}.hv-chart .hv-area{fill:#20706b}"
    ".hv-chart .hv-bad{fill:#b4481e}.hv-chart .hv-ideal{stroke:#6a717a;stroke-width:1;"
    "stroke-dasharray:4 4;fill:none}"
    "@media (prefers-color-scheme:dark){.hv-chart .hv-paper{fill:#191b1e}.hv-chart text{fill:#e6e8ea}"
    ".hv-chart .hv-quiet{fill:#9aa1a9}"
    ".hv-chart .hv-line{stroke:#3a4046}.hv-chart .hv-mark{stroke:#56b3ab}.hv-chart .hv-area{fill:#56b3ab}"
    ".hv-chart .hv-bad{fill:#e58a5f}.hv-chart .hv-ideal{stroke:#9aa1a9}}"
)
_CELL: Final = 46
_PLOT: Final = 320
_LEFT: Final = 56
_TOP: Final = 28
_BINS: Final = 10
_TOPS: Final = (0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_LETTER: Final = 6.7
"""Width of a letter, about, in pixels."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of `measures_svg`: a value from 0 to 1 with its interval, and the goal if there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    goal: float | None = None


def confusion_svg(matrix: Counts, names: Sequence[str], *, name: str = "confusion") -> str:
    """Return a confusion matrix (truths × predictions, counts) as a heat table; ``names`` label both sides."""
    count = len(names)
    left, top = 190, 150
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = [_text(left - 10, top - 12, "is ↓  said →", "hv-quiet", anchor="end")]
    for position, label in enumerate(names):
        middle = top + position * _CELL + _CELL / 2 + 4
        parts.append(_text(left - 10, middle, label, anchor="end"))
        x = left + position * _CELL + _CELL / 2 + 4
        parts.append(
            f'<text x="{x:.0f}" y="{top - 8}" transform="rotate(-50 {x:.0f} {top - 8})">{escape(label)}</text>'
        )
    shares = matrix / totals
    for row in range(count):
        for column in range(count):
            x, y, value = left + column * _CELL, top + row * _CELL, int(matrix[row, column])
            parts.append(f'<rect class="hv-line" x="{x}" y="{y}" width="{_CELL}" height="{_CELL}"/>')
            if value:
                kind = "hv-area" if row == column else "hv-bad"
                strength = 0.12 + 0.5 * float(shares[row, column])
                parts.append(
                    f'<rect class="{kind}" opacity="{strength:.2f}" x="{x}" y="{y}" width="{_CELL}" height="{_CELL}"/>'
                )
                parts.append(_text(x + _CELL / 2, y + _CELL / 2 + 4, str(value), anchor="middle"))
    hits = int(np.trace(matrix))
    about = (
        f"{hits} of {int(matrix.sum())} cells on the diagonal. Rows are what a cell is, columns what the model said."
    )
    side = count * _CELL
    return _chart(name, "Confusion matrix", about, left + side + 120, top + side + 16, parts)


def reliability_svg(confidences: Floats, hits: Hits, *, error: float, name: str = "reliability") -> str:
    """Return a reliability diagram: in ten bins of confidence, how often the model was right, and how many cells.

    ``error`` is the expected calibration error to print.
    """
    parts = _frame("confidence", "share that is right")
    parts.append(f'<path class="hv-ideal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>')
    places = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    for place in range(_BINS):
        inside = places == place
        number = int(inside.sum())
        if not number:
            continue
        sure, right = float(confidences[inside].mean()), float(hits[inside].mean())
        radius = 3.0 + 9.0 * (number / len(hits)) ** 0.5
        words = f"{number} cells of confidence {sure:.2f}: {right:.2f} right"
        parts.append(
            f'<circle class="hv-area" opacity="0.8" cx="{_x(sure):.1f}" cy="{_y(right):.1f}" r="{radius:.1f}">'
            f"<title>{words}</title></circle>"
        )
        parts.append(_text(_x(sure), _y(right) - radius - 4, str(number), "hv-quiet", anchor="middle"))
    about = f"Expected calibration error {error:.3f} on {len(hits)} cells. On the dashed line confidence is honest."
    return _chart(name, "Reliability", about, _LEFT + _PLOT + 40, _TOP + _PLOT + 50, parts)


def risk_coverage_svg(confidences: Floats, hits: Hits, *, name: str = "risk-coverage") -> str:
    """Return the risk–coverage curve: the share of errors among the surest part of the cells."""
    coverage, risk = risk_coverage(confidences, hits)
    top = next(one for one in _TOPS if one >= min(1.0, float(risk.max())))
    parts = _frame("share of cells answered, the surest first", "share of errors", highest=top)
    points = " ".join(f"{_x(float(c)):.1f},{_y(float(r) / top):.1f}" for c, r in zip(coverage, risk, strict=True))
    parts.append(f'<polyline class="hv-mark" points="{points}"/>')
    about = f"Area under the curve {area_under_risk(confidences, hits):.4f}; {float(risk[-1]):.3f} if all are answered."
    return _chart(name, "Risk and coverage", about, _LEFT + _PLOT + 40, _TOP + _PLOT + 50, parts)


def risk_coverage(confidences: Floats, hits: Hits) -> tuple[Floats, Floats]:
    """Return (coverage, risk) for every number of surest cells, 1 … N (Geifman & El-Yaniv 2017)."""
    order = np.argsort(-confidences, kind="stable")
    wrong = np.cumsum(~hits[order])
    numbers = np.arange(1, len(hits) + 1)
    return numbers / len(hits), np.asarray(wrong / numbers, np.float64)


def area_under_risk(confidences: Floats, hits: Hits) -> float:
    """Return the mean risk over all coverages: 0 = every error is less sure than every right answer."""
    return float(risk_coverage(confidences, hits)[1].mean())


def measures_svg(rows: Sequence[Measure], title: str, *, name: str = "measures", bars: bool = False) -> str:
    """Return shares from 0 to 1 as points with their intervals, one below the other; a goal is a short stroke.

    ``bars``: each value is a bar from 0 as well.
    """
    left = max(120.0, 24.0 + _LETTER * max((len(row.name) for row in rows), default=0))
    wide, high = 360, 26
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * wide
        parts.append(f'<path class="hv-line" d="M{x:.0f} 14V{20 + high * len(rows)}"/>')
        parts.append(_text(x, 34 + high * len(rows), f"{tick:g}", "hv-quiet", anchor="middle"))
    for number, row in enumerate(rows):
        parts += _measure(row, left, 26 + high * number, wide, bars=bars)
    about = "; ".join(f"{row.name} {row.value:.3f}" for row in rows)
    return _chart(name, title, about, left + wide + 70, 46 + high * len(rows), parts)


def _measure(row: Measure, left: float, y: float, wide: float, *, bars: bool) -> list[str]:
    missed = row.goal is not None and row.value < row.goal
    kind = "hv-bad" if missed else "hv-area"
    parts = [_text(left - 12, y + 4, row.name, anchor="end")]
    if bars:
        long = row.value * wide
        bar = f'<rect class="{kind}" opacity="0.3" x="{left:.1f}" y="{y - 8:.1f}" width="{long:.1f}" height="16"/>'
        parts.append(bar)
    if row.low is not None and row.high is not None:
        parts.append(f'<path class="hv-mark" d="M{left + row.low * wide:.1f} {y}H{left + row.high * wide:.1f}"/>')
    if row.goal is not None:
        parts.append(f'<path class="hv-ideal" d="M{left + row.goal * wide:.1f} {y - 9}V{y + 9}"/>')
    parts.append(f'<circle class="{kind}" cx="{left + row.value * wide:.1f}" cy="{y}" r="4.5"/>')
    return [*parts, _text(left + wide + 14, y + 4, f"{row.value:.3f}")]


def _frame(across: str, up: str, *, highest: float = 1.0) -> list[str]:
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="hv-line" d="M{_x(tick)} {_y(0)}V{_y(1)}M{_x(0)} {_y(tick)}H{_x(1)}"/>')
        parts.append(_text(_x(tick), _y(0) + 18, f"{tick:g}", "hv-quiet", anchor="middle"))
        parts.append(_text(_x(0) - 8, _y(tick) + 4, f"{tick * highest:.2g}", "hv-quiet", anchor="end"))
    parts.append(_text(_x(0.5), _y(0) + 40, across, anchor="middle"))
    parts.append(_text(_x(0), _TOP - 6, up))
    return parts


def _x(value: float) -> float:
    return _LEFT + value * _PLOT


def _y(value: float) -> float:
    return _TOP + (1.0 - value) * _PLOT


def _text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _chart(name: str, title: str, about: str, width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="hv-chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(about)}</desc>'
        f'<style>{_STYLE}</style><rect class="hv-paper" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )
