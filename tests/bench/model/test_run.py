"""A run of the bench: which sections are measured, and what is written after each."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.model import run
from tests.bench.model.bench import Bench
from tests.bench.model.pace import training_seconds
from tests.bench.model.rows import row
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import stages
from tests.bench.model.steps import Steps

ASKED: list[str] = []


def section(name: str, *, fails: type[BaseException] | None = None, version: int = 1) -> Section:
    def measure(bench: Bench) -> Measured:
        ASKED.append(name)
        if fails is not None:
            raise fails
        return Measured([row(f"figure of {name}", 0.5, None, None, 3, goal=None)], plots={f"model-{name}": "<svg/>"})

    return Section(name, name, measure, version, (1, 1))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    ASKED.clear()
    (tmp_path / "labels.csv").write_text("path,class\n")
    return Bench(tmp_path, tmp_path / "work", quick=True, steps=Steps())


def measures(bench: Bench) -> list[str]:
    return [one["measure"] for one in json.loads((bench.work / "results.json").read_text())]


def test_a_killed_run_loses_one_section_and_the_next_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = bench.data / "docs"
    sections = (section("a"), section("b", fails=KeyboardInterrupt), section("c"))
    monkeypatch.setattr(run, "SECTIONS", sections)
    with pytest.raises(KeyboardInterrupt):
        run.measure(bench, sections, again=frozenset(), docs=docs)
    assert measures(bench) == ["figure of a"]
    assert (docs / "images" / "model-a.svg").read_text() == "<svg/>"
    sections = (section("a"), section("b"), section("c"))
    monkeypatch.setattr(run, "SECTIONS", sections)
    run.measure(bench, sections, again=frozenset(), docs=docs)
    assert ASKED == ["a", "b", "b", "c"]
    assert measures(bench) == ["figure of a", "figure of b", "figure of c"]


def test_only_what_is_asked_for_or_stale_is_measured_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = (section("a"), section("b"))
    monkeypatch.setattr(run, "SECTIONS", sections)
    run.measure(bench, sections, again=frozenset(), docs=bench.data)
    run.measure(bench, sections[:1], again=frozenset(["a"]), docs=bench.data)
    assert ASKED == ["a", "b", "a"]
    changed = (sections[0], section("b", version=2))
    monkeypatch.setattr(run, "SECTIONS", changed)
    run.compose(bench, bench.data)
    assert measures(bench) == ["figure of a"]  # the other was measured otherwise
    (bench.data / "labels.csv").write_text("path,class\nx.png,monocyte\n")
    run.compose(bench, bench.data)
    assert measures(bench) == []


def test_a_section_that_fails_does_not_keep_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = (section("a", fails=RuntimeError), section("b"))
    monkeypatch.setattr(run, "SECTIONS", sections)
    assert run.measure(bench, sections, again=frozenset(), docs=bench.data) == ["a"]
    assert measures(bench) == ["figure of b"]


def test_a_whole_run_shows_what_a_quick_one_has_until_it_has_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(section("a"), also=lambda of: of.quick)
    monkeypatch.setattr(run, "SECTIONS", (one,))
    run.measure(bench, (one,), again=frozenset(), docs=bench.data)
    whole = replace(bench, quick=False)
    run.compose(whole, bench.data)
    page = bench.data / "model-quality.md"
    assert "From a quick run" in page.read_text()
    run.measure(whole, (one,), again=frozenset(), docs=bench.data)
    assert ASKED == ["a", "a"]
    assert "From a quick run" not in page.read_text()


def test_sections_have_names_of_their_own_and_ask_models_that_are_trained() -> None:
    names = [one.name for one in run.SECTIONS]
    assert len(set(names)) == len(names)
    assert set(run.SECTIONS[0].models) == {"both"}  # the figures that matter most, first
    for quick in (True, False):
        bench = Bench(Path(), Path(), quick=quick, steps=Steps())
        asked = {name for one in run.SECTIONS if not (quick and one.whole_only) for name in one.asked(bench)}
        assert asked == set(stages(quick=quick))


def test_a_quick_run_is_planned_within_its_time() -> None:
    quick = Bench(Path(), Path(), quick=True, steps=Steps())
    own = sum(one.seconds[0] for one in run.SECTIONS if not one.whole_only)
    trained = sum(training_seconds(quick.stage(name)) for name in stages(quick=True))
    assert own + trained <= 43 * 60  # of 45 minutes


def test_a_missing_label_file_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run.main(["--data", str(tmp_path), "--quick"]) == 2
    assert "labels.csv" in capsys.readouterr().err
