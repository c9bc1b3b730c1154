"""The bench itself: what it keeps, what its page says, and that its case has the size that is named."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.bench.portal.page import NOTES, written
from tests.bench.portal.run import PAGE, SECTIONS, main
from tests.bench.portal.section import Measured, Options, figure, middle, most
from tests.bench.portal.smears import joined
from tests.portal.drawn import draw_smears


def test_one_section_is_measured_kept_and_written(tmp_path: Path) -> None:
    work, page = tmp_path / "work", tmp_path / "page.md"
    assert main(["--only", "scripts", "--work", str(work), "--to", str(page)]) == 0
    (row,) = json.loads((work / "results.json").read_text())
    assert set(row) == {"measure", "value", "low", "high", "n", "goal", "holds"}
    assert row["holds"] is True
    assert "| all scripts, gzip, KB |" in page.read_text()
    assert page.read_text().count("Not measured yet.") == len(SECTIONS) - 1
    assert main(["--page", "--work", str(work), "--to", str(page)]) == 0
    assert "| all scripts, gzip, KB |" in page.read_text()


def test_page_says_plainly_what_is_missed(tmp_path: Path) -> None:
    rows = [middle("slow, ms", [700.0] * 5, goal=500), figure("errors", 0, goal=0), figure("free", 3.5, goal=None)]
    text = written(SECTIONS, {"opening": Measured(rows, ["A fact."])}, Options(tmp_path), on="A machine.")
    assert text.count("| slow, ms | 700 | 700–700 | 5 | ≤ 500 | **no** |") == 2  # among the goals and in its section
    assert "- **slow, ms**: 700.0, 200.0 above the goal of 500; the goal lies outside the interval." in text
    assert "| errors | 0 |  | 1 | ≤ 0 | yes |" in text
    assert "- A fact." in text


def test_page_says_what_was_tried_of_what_is_missed(tmp_path: Path) -> None:
    rows = [figure("SQLite: every request, ms (p95)", 400, goal=250)]
    text = written(SECTIONS, {"readers-sqlite": Measured(rows)}, Options(tmp_path), on="A machine.")
    assert "above the goal of 250. Tried: " in text
    assert ". What would close it: " in text


def test_what_was_tried_is_told_of_measures_that_there_are() -> None:
    measured = PAGE.read_text()
    assert [name for name in tomllib.loads(NOTES.read_text()) if f"| {name} |" not in measured] == []


def test_a_quick_runs_section_stands_in_until_a_whole_run_has_measured_it(tmp_path: Path) -> None:
    work, page = tmp_path / "work", tmp_path / "page.md"
    asked = ["--work", str(work), "--to", str(page)]
    assert main(["--quick", "--only", "scripts", *asked]) == 0
    assert main(["--page", *asked]) == 0
    assert page.read_text().count("**From a quick run**") == 1
    assert main(["--only", "scripts", *asked]) == 0
    assert "**From a quick run**" not in page.read_text()


def test_percentiles_are_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert middle("x", values, goal=None)["value"] == pytest.approx(50.5)
    upper = most("x", values, goal=90)
    assert upper["value"] == pytest.approx(95.0, abs=0.2)
    assert upper["holds"] is False


def test_smears_are_joined_to_the_size_that_is_asked_for() -> None:
    drawn = [one for one in draw_smears(cells_per_field=6) if one.smear.fields]
    made = joined(drawn, 40, 10)
    assert (len(made.smear.cells), len(made.smear.fields)) == (40, 10)
    assert {cell.field for cell in made.smear.cells} == set(range(10))
    assert all((cell.source or "") in made.images for cell in made.smear.cells)
    with pytest.raises(ValueError, match="were drawn"):
        joined(drawn, 10_000, 10)
