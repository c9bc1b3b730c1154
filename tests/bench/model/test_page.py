"""The page: what it says of goals, misses and parts that are not there."""

from tests.bench.model.bench import Bench
from tests.bench.model.page import Part, by_how_much, page
from tests.bench.model.rows import row
from tests.bench.model.section import Measured, Section


def nothing(_: Bench) -> Measured:
    return Measured()


def section(name: str, *, whole_only: bool = False) -> Section:
    return Section(name, f"Title of {name}", nothing, 1, (1, 1), method="By hand.", whole_only=whole_only)


MET = row("met", 0.9, 0.8, 0.95, 10, goal=0.85)
MISSED = row("missed", 0.7, 0.6, 0.9, 10, goal=0.85)
FREE = row("free", 123.456, None, None, 10, goal=None)


def written(*parts: Part) -> str:
    return page(parts, machine="A machine.", seconds=1300, quick=True, pictures=["model-overlays"])


def test_page_names_goals_misses_and_what_is_absent() -> None:
    found = Measured([MET, MISSED, FREE], ["A fact."], {"model-x": "<svg/>"})
    text = written(Part(section("a"), found, quick=True, seconds=30.0), Part(section("b"), None, quick=False))
    assert text.count("| met | 0.900 | 0.800–0.950 | 10 | 0.85 | yes |") == 2  # among the goals and in its section
    assert text.count("| free | 123.5 |  | 10 |  |  |") == 1
    assert "- **missed**: 0.700, 0.150 below the goal of 0.85; the goal lies within the interval." in text
    assert "22 minutes" in text
    assert "From a quick run" in text.split("## Title of a")[1]
    assert "- A fact." in text
    assert "images/model-x.svg" in text
    assert text.split("## Title of b")[1].strip().startswith("Not measured yet.")
    assert "(images/model-overlays.jpg)" in text


def test_a_part_of_a_whole_run_is_not_missed_in_a_quick_one() -> None:
    text = written(Part(section("a", whole_only=True), None, quick=False))
    assert "Not in a quick run." in text
    assert "Every goal that was measured is met." not in text


def test_how_much_is_missed_knows_which_way_is_better() -> None:
    assert by_how_much(row("x", 170.0, 150.0, 180.0, 3, goal=150, at_most=True)) == (
        "170.0, 20.0 above the goal of 150; the goal lies within the interval"
    )
    assert by_how_much(row("x", 0.05, 0.04, 0.06, 3, goal=0.03, at_most=True)).endswith("outside the interval")
    assert by_how_much(row("x", 0.5497, None, None, 3, goal=0.55)) == ("0.550, less than 0.001 below the goal of 0.55")
    assert by_how_much(row("x", 0.5, None, None, 3, goal=0.6)) == "0.500, 0.100 below the goal of 0.6"
