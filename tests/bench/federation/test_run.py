"""What the federation's bench plans and says before it measures."""

from pathlib import Path

import pytest

from tests.bench.federation import run
from tests.bench.federation.front import FRONT
from tests.bench.model.page import Part, page
from tests.bench.model.rows import row
from tests.bench.model.section import Measured


def test_sections_have_names_of_their_own() -> None:
    names = [one.name for one in run.SECTIONS]
    assert len(set(names)) == len(names)


def test_runs_are_planned_within_their_time() -> None:
    assert sum(one.seconds[0] for one in run.SECTIONS if not one.whole_only) <= 60 * 60
    assert sum(one.seconds[1] for one in run.SECTIONS) <= 9 * 60 * 60


def test_the_page_says_what_it_is_and_what_is_missed() -> None:
    found = Measured([row("lost", 4.0, None, None, 5, goal=3.0, at_most=True)])
    text = page([Part(run.SECTIONS[0], found, quick=False)], machine="m", seconds=60, quick=False, front=FRONT)
    assert text.startswith("# What learning together is worth")
    assert "Written by `make bench-federation` from the real smears" in text
    assert "- **lost**: 4.000, 1.000 above the goal of 3." in text


def test_a_missing_label_file_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run.main(["--data", str(tmp_path)]) == 2
    assert "labels.csv" in capsys.readouterr().err
