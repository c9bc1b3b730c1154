"""A section of the bench: what it measures, and what its result is stored by."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row
from tests.bench.model.steps import Json, Piece, stored


@dataclass(frozen=True, slots=True)
class Measured:
    """What a section has found."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts beside the figures, a sentence each."""
    plots: dict[str, str] = field(default_factory=dict)
    """Name → SVG."""
    text: str = ""
    """Markdown below the figures."""


def _nothing(_: Bench) -> Json:
    return None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. ``version`` rises when the same facts would give other figures."""

    name: str
    title: str
    measure: Callable[[Bench], Measured]
    version: int
    seconds: tuple[float, float]
    """What it takes by itself on 2 cores, about: in a quick run, in a whole one."""
    models: tuple[str, ...] = ()
    """Stages whose models it asks."""
    whole_models: tuple[str, ...] = ()
    """Others that it asks in a whole run."""
    also: Callable[[Bench], Json] = _nothing
    """What else it depends on."""
    method: str = ""
    """How it was measured, for the page."""
    whole_only: bool = False
    """Not in a quick run."""

    def asked(self, bench: Bench) -> tuple[str, ...]:
        """Return the stages whose models it asks in this run."""
        return self.models if bench.quick else (*self.models, *self.whole_models)

    def facts(self, bench: Bench) -> Json:
        """Return what its result depends on."""
        data = bench.facts()
        return {
            "version": self.version,
            "data": data,
            "models": bench.facts(*self.asked(bench)),
            "also": self.also(bench),
        }

    def quick(self, bench: Bench) -> bool:
        """Return whether a whole run would measure it otherwise."""
        return bench.quick and self.facts(bench) != self.facts(replace(bench, quick=False))

    def file(self, bench: Bench) -> Path:
        """Return where its result is kept."""
        return bench.work / "sections" / f"{self.name}{'-quick' if self.quick(bench) else ''}.json"

    def run(self, bench: Bench, *, again: bool = False) -> Piece:
        """Measure, unless it was measured from the same facts."""
        return bench.steps.run(self.file(bench), self.facts(bench), lambda: asdict(self.measure(bench)), again=again)

    def found(self, bench: Bench) -> Piece | None:
        """Return what was measured from the same facts, if it was."""
        return stored(self.file(bench), self.facts(bench))


def measured(piece: Piece) -> Measured:
    """Return what a section's piece holds."""
    return Measured(**piece.result)
