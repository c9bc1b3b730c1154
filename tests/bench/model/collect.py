"""What the sections of a bench have found so far: for its page, and as ``results.json``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.model.bench import Bench
from tests.bench.model.page import Part
from tests.bench.model.rows import Row
from tests.bench.model.section import Section, measured
from tests.bench.model.steps import Piece


@dataclass(frozen=True, slots=True)
class Collected:
    """The parts of a page, and what all pieces that it stands on took."""

    parts: list[Part]
    seconds: float


def collected(sections: Sequence[Section], bench: Bench, *, images: Path) -> Collected:
    """Return what is there of ``sections``; write their plots to ``images`` and all rows to ``results.json``."""
    parts: list[Part] = []
    times: dict[str, float] = {}
    rows: list[Row] = []
    images.mkdir(parents=True, exist_ok=True)
    for section in sections:
        piece, quick = _found(section, bench)
        if piece is None:
            parts.append(Part(section, None, quick=False))
            continue
        found = measured(piece)
        rows += found.rows
        times.update(piece.within | {section.name: piece.seconds})
        for name, chart in found.plots.items():
            (images / f"{name}.svg").write_text(chart)
        parts.append(Part(section, found, quick, piece.seconds))
    bench.work.mkdir(parents=True, exist_ok=True)
    (bench.work / "results.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    return Collected(parts, sum(times.values()))


def _found(section: Section, bench: Bench) -> tuple[Piece | None, bool]:
    """Return a section's piece and whether it is a quick run's, which stands in until a whole run has measured it."""
    for one in (bench, replace(bench, quick=True)):
        piece = None if section.whole_only and one.quick else section.found(one)
        if piece is not None:
            return piece, section.quick(one)
    return None, False
