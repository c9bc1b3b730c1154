"""Writes ``docs/model-quality.md`` from what was measured."""

import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section

NOTES: Final = Path(__file__).with_name("notes.toml")
_LARGE: Final = 10.0
_WIDE: Final = 120
_METHOD: Final = """\
Real smears of two laboratories: PBC (single cells of one hospital) and BCCD (whole fields), split by group, so that
near duplicates stay together. Nothing is trained on, fitted on or chosen by test groups. The model of both sources is
`tf_efficientnet_lite0` at 144 px, every layer learning on at most 2,300 images for 12 epochs; each section says by
which model and by which runtime its figures are. Intervals are 95 %: exact (Clopper–Pearson) for shares, by bootstrap
over cells for the rest, unless a row says otherwise. A missed goal says **no**; what was tried stands below.
"""
_PICTURES: Final = {
    "model-field-bccd": (
        "A test field of BCCD with boxes, classes, prediction sets and flags",
        "Field: BCCD (Shenggan/BCCD_Dataset), MIT licence, © 2017 shenggan; boxes and words are the analysis'.",
    ),
    "model-gallery-pbc": (
        "Test cells of PBC with classes, prediction sets and flags",
        "Cells: A. Acevedo et al., Data in Brief 30 (2020) 105474, CC BY 4.0; words are the analysis'.",
    ),
    "model-overlays": (
        "Test cells, their overlays, and the overlays after all weights were randomised",
        "Each row: the cell, its overlay, the overlay by random weights. Cells: Acevedo et al. (2020), CC BY 4.0.",
    ),
}


@dataclass(frozen=True, slots=True)
class Front:
    """What stands around the sections of a page."""

    title: str
    target: str
    """Of the Makefile."""
    source: str
    """What it was measured on."""
    method: str
    notes: Path
    """What is said of missed goals, by measure."""


MODEL: Final = Front("How good the model is", "bench-model", "the real smears", _METHOD, NOTES)


@dataclass(frozen=True, slots=True)
class Part:
    """A section with what was found, or None where it was not measured yet."""

    section: Section
    found: Measured | None
    quick: bool
    """Whether a whole run measures it otherwise."""
    seconds: float = 0.0


def page(
    parts: Sequence[Part],
    *,
    machine: str,
    seconds: float,
    quick: bool,
    pictures: Sequence[str] = (),
    front: Front = MODEL,
) -> str:
    """Return the Markdown page. ``seconds``: of all pieces it stands on, models too, whenever they were made."""
    how = f"`make {front.target} ARGS=--quick`" if quick else f"`make {front.target}`"
    lines = [f"# {front.title}", "", f"Written by {how} from {front.source}; it takes {_time(seconds)} on:", ""]
    lines += [machine, "", front.method, *_goals(parts), *_missed(parts, front.notes)]
    for part in parts:
        lines += ["", f"## {part.section.title}", ""]
        lines += _part(part) if part.found is not None else [_absent(part.section, quick=quick)]
    lines += _drawn(pictures)
    return "\n".join(lines).rstrip() + "\n"


def _goals(parts: Sequence[Part]) -> list[str]:
    lines = _table([row for part in parts if part.found for row in part.found.rows if row["goal"] is not None])
    return ["## Goals", "", *lines]


def _missed(parts: Sequence[Part], file: Path) -> list[str]:
    notes = tomllib.loads(file.read_text())
    rows = [row for part in parts if part.found for row in part.found.rows if row["holds"] is False]
    if not rows:
        return ["", "Every goal that was measured is met." if any(part.found for part in parts) else ""]
    lines = ["", "### Goals that were missed", ""]
    for row in rows:
        note = notes.get(str(row["measure"]), {})
        said = " ".join(
            f"{word}: {note[key]}"
            for key, word in (("tried", "Tried"), ("closes", "What would close it"))
            if key in note
        )
        lines.append(f"- **{row['measure']}**: {by_how_much(row)}. {said or 'Nothing was tried yet.'}")
    return lines


def by_how_much(row: Row) -> str:
    """Say by how much a row misses its goal."""
    value, goal = float(row["value"] or 0.0), float(row["goal"] or 0.0)
    reach = ""
    if row["low"] is not None and row["high"] is not None:
        inside = float(row["low"]) <= goal <= float(row["high"])
        reach = "; the goal lies within the interval" if inside else "; the goal lies outside the interval"
    word, far = "above" if value > goal else "below", _number(abs(value - goal))
    # What rounds to nothing is a miss all the same.
    told = f"less than {far[:-1]}1" if float(far) == 0.0 else far
    return f"{_number(value)}, {told} {word} the goal of {goal:g}{reach}"


def _part(part: Part) -> list[str]:
    found = part.found or Measured()
    lines = textwrap.wrap(part.section.method, _WIDE)
    if part.quick:
        lines += ["", "**From a quick run**: models with fewer epochs, or fewer of them; a whole run measures it anew."]
    lines += ["", *_table(found.rows)] if found.rows else []
    if found.notes:
        lines += ["", *(f"- {note}" for note in found.notes)]
    for name in found.plots:
        lines += ["", f"![{part.section.title}: {name.partition('-')[2]}](images/{name}.svg)"]
    if found.text:
        lines += ["", found.text]
    return [*lines, "", f"*Measured in {_time(part.seconds)}, trainings not counted.*"]


def _absent(section: Section, *, quick: bool) -> str:
    if section.whole_only and quick:
        return "Not in a quick run."
    return "Not measured yet."


def _drawn(pictures: Sequence[str]) -> list[str]:
    lines = []
    for name in pictures:
        words, source = _PICTURES[name]
        lines += ["", f"![{words}](images/{name}.jpg)", "", source]
    return lines


def _table(rows: Sequence[Row]) -> list[str]:
    return [
        "| measure | value | interval | n | goal | holds |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]


def _line(row: Row) -> str:
    interval = "" if row["low"] is None else f"{_number(row['low'])}–{_number(row['high'])}"
    holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]  # type: ignore[index]  # holds is one of the three
    goal = "" if row["goal"] is None else f"{row['goal']:g}"
    return f"| {row['measure']} | {_number(row['value'])} | {interval} | {row['n']} | {goal} | {holds} |"


def _number(value: str | float | None) -> str:
    number = float(value or 0.0)
    return f"{number:.1f}" if abs(number) >= _LARGE else f"{number:.3f}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
