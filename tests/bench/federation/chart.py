"""Line charts for the page, in the look of the product's own charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from client_node.analysis.evaluation import svg

Points = Sequence[tuple[float, float]]
_COLOURS: Final = ("#20706b", "#b4481e", "#7a5ea8", "#8a7a1f", "#3a6ea5", "#6a717a")
_WIDE: Final = 420
_HIGH: Final = 260
_LEFT: Final = 62
_TOP: Final = 30
_STEPS: Final = 5
_ROUND: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, and from where to where."""

    words: str
    low: float
    high: float

    @property
    def step(self) -> float:
        """The distance of its lines: round, at most `_STEPS` of them between its ends."""
        least = (self.high - self.low) / _STEPS or 1.0
        ten = 10.0 ** math.floor(math.log10(least))
        return next(ten * times for times in _ROUND if ten * times >= least * (1 - 1e-9))

    def rounded(self) -> "Axis":
        """Return it from one of its lines to another."""
        step = self.step
        low, high = math.floor(self.low / step + 1e-9), math.ceil(self.high / step - 1e-9)
        return Axis(self.words, low * step, high * step)

    def lines(self) -> list[float]:
        """Return where its lines lie."""
        step = self.step
        return [self.low + step * number for number in range(round((self.high - self.low) / step) + 1)]

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        return (value - self.low) / ((self.high - self.low) or 1.0)


def lines_svg(series: Mapping[str, Points], title: str, *, across: Axis, up: Axis, name: str) -> str:
    """Return named lines through points (x, y); a line of one point is a dot. The legend stands below."""
    across, up = across.rounded(), up.rounded()
    parts = _grid(across, up)
    for number, (words, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(_x(across.share(x)), _y(up.share(y))) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts += [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places]
        line = _TOP + _HIGH + 68 + 20 * number
        parts.append(f'<circle fill="{colour}" cx="{_LEFT + 6}" cy="{line - 4}" r="5"/>')
        parts.append(svg._text(_LEFT + 20, line, words))
    about = "; ".join(
        f"{words}: {', '.join(f'{x:g} → {y:.3g}' for x, y in points)}" for words, points in series.items()
    )
    high = _TOP + _HIGH + 76 + 20 * len(series)
    return svg._chart(name, title, about, _LEFT + _WIDE + 60, high, parts)


def _grid(across: Axis, up: Axis) -> list[str]:
    parts = []
    for there in across.lines():
        share = across.share(there)
        parts.append(f'<path class="hv-line" d="M{_x(share):.0f} {_y(0):.0f}V{_y(1):.0f}"/>')
        parts.append(svg._text(_x(share), _y(0) + 18, f"{there:.3g}", "hv-quiet", anchor="middle"))
    for above in up.lines():
        share = up.share(above)
        parts.append(f'<path class="hv-line" d="M{_x(0):.0f} {_y(share):.0f}H{_x(1):.0f}"/>')
        parts.append(svg._text(_x(0) - 8, _y(share) + 4, f"{above:.3g}", "hv-quiet", anchor="end"))
    parts.append(svg._text(_x(0.5), _y(0) + 40, across.words, anchor="middle"))
    parts.append(svg._text(_x(0), _TOP - 8, up.words))
    return parts


def _x(share: float) -> float:
    return _LEFT + share * _WIDE


def _y(share: float) -> float:
    return _TOP + (1.0 - share) * _HIGH
