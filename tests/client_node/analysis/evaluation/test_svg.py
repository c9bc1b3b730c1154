"""Charts: what they say, and that they are sound files."""

import numpy as np
import pytest
from defusedxml import ElementTree  # type: ignore[import-untyped]  # ships no type information

from client_node.analysis.evaluation import svg

SURE = np.array([0.9, 0.8, 0.6, 0.7])
HITS = np.array([True, True, False, False])


def words(chart: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")]


def test_risk_falls_with_what_is_left_to_a_reader() -> None:
    coverage, risk = svg.risk_coverage(SURE, HITS)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(risk, [0.0, 0.0, 1 / 3, 0.5])
    assert svg.area_under_risk(SURE, HITS) == pytest.approx((1 / 3 + 0.5) / 4)


def test_confusion_names_classes_and_prints_every_count() -> None:
    found = words(svg.confusion_svg(np.array([[7, 2], [0, 3]]), ["a <cell>", "b"]))
    assert found.count("a <cell>") == 2
    assert {"7", "2", "3"} <= set(found)
    assert "0" not in found


def test_reliability_prints_the_cells_of_each_bin() -> None:
    chart = svg.reliability_svg(SURE, HITS, error=0.25)
    assert "Expected calibration error 0.250 on 4 cells" in chart
    assert chart.count("1 cells of confidence") == 4


def test_a_missed_goal_is_drawn_otherwise() -> None:
    rows = [
        svg.Measure("met", 0.9, 0.8, 0.95, 0.85),
        svg.Measure("missed", 0.7, 0.6, 0.8, 0.85),
        svg.Measure("free", 1),
    ]
    chart = svg.measures_svg(rows, "Goals")
    assert chart.count('class="hv-bad"') == 1
    assert chart.count('class="hv-area"') == 2
    assert {"met", "missed", "free", "0.900", "0.700"} <= set(words(chart))


@pytest.mark.parametrize(
    "chart",
    [
        svg.confusion_svg(np.array([[1]]), ["a"]),
        svg.reliability_svg(SURE, HITS, error=0.1),
        svg.risk_coverage_svg(SURE, np.array([True] * 4)),
        svg.measures_svg([], "Nothing"),
    ],
)
def test_every_chart_can_be_read_aloud(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    title, about = (root.find(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc"))
    assert title is not None
    assert about is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}"
    assert "nan" not in chart


def test_bars_begin_at_nought_and_names_have_room() -> None:
    rows = [svg.Measure("a name that is far longer than any that was drawn so far, and then some more", 0.5, 0.4, 0.6)]
    root = ElementTree.fromstring(svg.measures_svg(rows, "Bars", bars=True))
    bar = next(node for node in root.iter("{http://www.w3.org/2000/svg}rect") if node.get("class") == "hv-area")
    assert bar.get("width") == "180.0"
    assert float(bar.get("x") or 0) > 6 * len(rows[0].name)
    assert "hv-area" not in svg.measures_svg([], "Nothing", bars=True).split("</style>")[1]
