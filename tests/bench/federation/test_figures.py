"""Intervals over seeds and over cells, and a chart."""

import numpy as np
import pytest
from defusedxml import ElementTree  # type: ignore[import-untyped]  # ships no type information

from tests.bench.federation.chart import Axis, lines_svg
from tests.bench.federation.figures import over_seeds, paired


def test_a_mean_over_seeds_has_students_interval() -> None:
    row = over_seeds("x", [1.0, 2.0, 3.0], goal=3.0, at_most=True)
    assert (row["value"], row["n"], row["holds"]) == (2.0, 3, True)
    assert row["low"] == pytest.approx(2.0 - 4.303 / 3**0.5, abs=1e-3)  # t(0.975, 2) = 4.303
    assert over_seeds("x", [1.0])["low"] is None


def test_a_paired_difference_is_judged_by_its_lower_bound() -> None:
    ours, theirs = np.array([1.0] * 90 + [0.0] * 10), np.array([1.0] * 80 + [0.0] * 20)
    whole, lower = paired("x", ours, theirs, goal=0.0)
    assert whole["value"] == pytest.approx(10.0)
    assert whole["goal"] is None
    assert lower["value"] == whole["low"]
    assert lower["holds"] is True
    assert paired("x", theirs, ours, goal=-3.0)[1]["holds"] is False


def test_a_chart_is_sound_and_tells_its_points() -> None:
    text = lines_svg(
        {"a < b": [(0.0, 0.5), (10.0, 0.9)], "dot": [(5.0, 0.7)]},
        "Title",
        across=Axis("rounds", 0, 10),
        up=Axis("macro-F1", 0.5, 1.0),
        name="chart",
    )
    root = ElementTree.fromstring(text)
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 2
    assert "a < b: 0 → 0.5, 10 → 0.9" in "".join(root.itertext())
