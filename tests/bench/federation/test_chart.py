"""The lines of a chart stand at round numbers and hold every value."""

import pytest

from tests.bench.federation.chart import Axis


@pytest.mark.parametrize(
    ("low", "high", "lines"),
    [
        (0, 9.35, [0, 2, 4, 6, 8, 10]),
        (0.8, 0.933, [0.8, 0.85, 0.9, 0.95]),
        (0.65, 1.0, [0.6, 0.7, 0.8, 0.9, 1.0]),
        (0, 20, [0, 5, 10, 15, 20]),
    ],
)
def test_lines_are_round_and_hold_both_ends(low: float, high: float, lines: list[float]) -> None:
    assert Axis("", low, high).rounded().lines() == pytest.approx(lines)
