"""Writes ``docs/portal-speed.md`` and ``results.json`` from what was measured."""

import json
import platform
import sqlite3
import subprocess
import textwrap
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import uvicorn

from tests.bench.model.page import by_how_much
from tests.bench.model.rows import Row
from tests.bench.portal.section import Measured, Options, Section
from tests.browser.world import CHROMIUM

NOTES: Final = Path(__file__).with_name("notes.toml")
_WIDE: Final = 120


def machine() -> str:
    """Return what it was measured on, in words."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    browser = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return (
        f"{names[0] if names else platform.machine()}, {len(names) or 1} cores; Python {platform.python_version()}, "
        f"uvicorn {uvicorn.__version__}, SQLite {sqlite3.sqlite_version}, "
        f"Chromium {browser[1] if len(browser) > 1 else 'absent'}; browser, servers and load on the same cores."
    )


def written(
    sections: Sequence[Section],
    found: Mapping[str, Measured],
    options: Options,
    *,
    on: str,
    quick: Collection[str] = (),
) -> str:
    """Return the Markdown page; ``quick``: sections of which only a quick run's figures are there."""
    rows = [row for section in sections if section.name in found for row in found[section.name].rows]
    goals = [row for row in rows if row["goal"] is not None]
    missed = [row for row in goals if row["holds"] is False]
    how = "`make bench-portal ARGS=--quick`" if options.quick else "`make bench-portal`"
    lines = ["# How fast the portal is", "", f"Written by {how} on:", "", *textwrap.wrap(on, _WIDE), ""]
    lines += ["## Goals", "", *table(goals), ""]
    lines += ["### Goals that were missed", "", *map(_missed, missed)]
    if not missed:
        lines[-2:] = ["Every goal that was measured is met." if goals else "Nothing was measured yet."]
    for section in sections:
        part = found.get(section.name)
        lines += ["", f"## {section.title}", "", *textwrap.wrap(section.method, _WIDE), ""]
        if section.name in quick:
            lines += ["**From a quick run**: fewer repetitions, fewer readers; a whole run measures it anew.", ""]
        lines += table(part.rows) if part else ["Not measured yet."]
        if part and part.notes:
            lines += ["", *(f"- {note}" for note in part.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _missed(row: Row) -> str:
    note = tomllib.loads(NOTES.read_text()).get(str(row["measure"]), {})
    told = [f"- **{row['measure']}**: {by_how_much(row)}."]
    told += [
        f"{word}: {note[key]}" for key, word in (("tried", "Tried"), ("closes", "What would close it")) if key in note
    ]
    return " ".join(told)


def table(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a table."""
    return ["| measure | value | interval | n | goal | holds |", "|---|---|---|---|---|---|", *map(_line, rows)]


def _line(row: Row) -> str:
    interval = "" if row["low"] is None else f"{row['low']:g}–{row['high']:g}"
    holds = "" if row["holds"] is None else "yes" if row["holds"] else "**no**"
    goal = "" if row["goal"] is None else f"≤ {row['goal']:g}"
    return f"| {row['measure']} | {row['value']:g} | {interval} | {row['n']} | {goal} | {holds} |"


def results(sections: Sequence[Section], found: Mapping[str, Measured]) -> str:
    """Return all rows as JSON."""
    rows = [row for section in sections if section.name in found for row in found[section.name].rows]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
