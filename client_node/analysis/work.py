"""A smear in the making: what was found, what waits for the model, and how cells come of it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.detection import Box
from client_node.analysis.model import LoadedModel, Reading
from client_node.analysis.ranges import look
from client_node.analysis.store import Trace
from shared.contracts.analysis import Cell, FieldImage
from shared.contracts.laboratory import Gamut
from shared.contracts.objects import ObjectKind
from shared.vision import gamut

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A found cell."""

    place: int | None
    """Its field's index; None in a gallery."""
    box: Box
    source: str | None
    trace: Trace
    edge: bool = False
    reading: Reading | None = None
    """What finding it has told already."""


@dataclass(slots=True)
class Work:
    """A smear in the making."""

    id: str
    fields: list[FieldImage] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    traces: dict[str, Trace] = field(default_factory=dict)
    focus: list[float] = field(default_factory=list)
    brightness: list[float] = field(default_factory=list)
    dye: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    """All cells found so far; the first of them are in ``cells`` already."""
    crops: list[Pixels] = field(default_factory=list)
    """Of the waiting cells that nothing was read of yet."""
    rejected: Counter[ObjectKind] = field(default_factory=Counter)
    gamuts: tuple[Gamut, ...] = ()
    """The dyes that are known here."""
    empty: list[float] = field(default_factory=list)
    """Of fields without a cell, how strange their colours are."""

    def judge(self, pixels: Pixels) -> None:
        """Take note of how good an image is."""
        seen = look(pixels)
        self.focus.append(seen.focus)
        self.brightness.append(seen.brightness)
        self.dye.append(seen.dye)

    def look_at_empty(self, pixels: Pixels) -> float | None:
        """Take note of how strange the colours of an image without a cell are; None where they tell nothing."""
        seen = gamut.colours(pixels) if self.gamuts else None
        if seen is None:
            return None
        self.empty.append(min(gamut.strangeness(one, seen) for one in self.gamuts))
        return self.empty[-1]

    def back_to(self, fields: int, cells: int) -> None:
        """Forget all fields and cells but the first so many; those cells are read."""
        for number in range(cells, len(self.waiting)):
            self.traces.pop(cell_id(number), None)
        del self.fields[fields:], self.cells[cells:], self.waiting[cells:]
        self.crops.clear()

    def white(self) -> int:
        """How many white cells there are, taking those that nothing was read of yet for such."""
        known = sum(cell.cls.info.counts for cell in self.cells)
        waiting = self.waiting[len(self.cells) :]
        return known + sum(one.reading is None or one.reading.cls.info.counts for one in waiting)


def white(cells: Sequence[Cell]) -> int:
    """Return how many of the cells are white cells."""
    return sum(cell.cls.info.counts for cell in cells)


def cell_id(number: int) -> str:
    """Return the id of a smear's cell by its place, counted from 0."""
    return f"c{number + 1:04d}"


def read(model: LoadedModel, work: Work) -> None:
    """Classify the cells that wait; so the crops of a large smear never lie in memory together."""
    readings = iter(model.read(work.crops))
    for number in range(len(work.cells), len(work.waiting)):
        waiting = work.waiting[number]
        reading = next(readings) if waiting.reading is None else waiting.reading
        work.traces[cell_id(number)] = waiting.trace
        work.cells.append(_cell(cell_id(number), waiting, reading))
    work.crops.clear()


def _cell(identity: str, waiting: Waiting, reading: Reading) -> Cell:
    return Cell.model_validate(
        {
            "id": identity, "field": waiting.place, "box": waiting.box, "class": reading.cls,
            "probability": reading.probability, "prediction_set": reading.prediction_set,
            "ood_score": reading.ood_score, "source": waiting.source, "edge": waiting.edge,
            "provisional": reading.provisional, "margin": reading.margin,
        }
    )  # fmt: skip


def scored(fields: Sequence[FieldImage], cells: Sequence[Cell]) -> tuple[FieldImage, ...]:
    """Say of each field how unlike its cells are, as a whole."""
    scores: defaultdict[int | None, list[float]] = defaultdict(list)
    for cell in cells:
        scores[cell.field].append(cell.ood_score)
    return tuple(
        one.model_copy(update={"ood_score": float(np.median(scores[number]))}) if scores[number] else one
        for number, one in enumerate(fields)
    )
