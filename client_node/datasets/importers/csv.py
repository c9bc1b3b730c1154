"""Importer of a label file: columns path, kind, class, source, site, group, split, xmin, ymin, xmax, ymax.

Only ``path`` and ``class`` must be there. ``kind`` is ``cell`` (the image shows one cell), ``box`` (one cell of
a field), ``field`` (a whole field, no class) or ``object`` (anything else of a field: ``class`` is wbc, rbc, platelet,
smudge or artefact); where absent it follows from the coordinates. A box without a class is a white cell of unknown
class. A Pascal VOC annotation beside a field adds the objects that the label file leaves out. Where a field has a row
and any mark, all of its white cells are marked; a field without marks is only an image.
"""

import csv
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from client_node.datasets.importers.candidate import UNREADABLE_TEXT, Candidate, Finding
from client_node.datasets.importers.voc import objects_beside
from client_node.datasets.labelled import Box, Kind
from shared.contracts.analysis import SkippedFile
from shared.contracts.errors import DataInvalidError, NoLabelsError

_COORDINATES = ("xmin", "ymin", "xmax", "ymax")


def read_rows(labels: Path, *, needed: Collection[str] = ("path", "class")) -> list[dict[str, str]]:
    """Return the rows of a label file as dictionaries of stripped text.

    Raises:
        NoLabelsError: there is no such file, it is empty, or it lacks a ``needed`` column.
        DataInvalidError: it is no readable text.
    """
    if not labels.is_file():
        raise NoLabelsError(
            f"There is no label file {labels}: give one with --labels, with the columns path and class."
        )
    try:
        with labels.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = {(name or "").strip().lower() for name in reader.fieldnames or ()}
            if not set(needed) <= columns:
                raise NoLabelsError(f"The label file {labels.name} needs the columns {' and '.join(needed)}.")
            rows = [
                {(k or "").strip().lower(): (v or "").strip() for k, v in row.items() if _text(v)} for row in reader
            ]
    except (csv.Error, *UNREADABLE_TEXT) as error:
        raise DataInvalidError(f"The label file {labels.name} is no readable UTF-8 CSV file.") from error
    if not rows:
        raise NoLabelsError(f"The label file {labels.name} has no rows: label at least one image.")
    return rows


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def candidates(root: Path, labels: Path) -> Iterator[Finding]:
    """Yield one finding a row of ``labels``; image paths are relative to ``root``."""
    for number, row in enumerate(read_rows(labels), start=2):
        finding = parse_row(row, root, number)
        yield finding
        if isinstance(finding, Candidate) and finding.kind is Kind.FIELD:
            for one in objects_beside(finding.path, root):
                yield replace(one, site=finding.site)


def parse_row(row: dict[str, str], root: Path, number: int) -> Finding:
    """Return what a row says, or why it is skipped."""
    shown = row.get("path") or f"(row {number})"
    try:
        path = inside(root, row.get("path", ""))
        box = _box(row)
        kind = Kind(row["kind"].lower()) if row.get("kind") else (Kind.BOX if box else Kind.CELL)
    except ValueError as error:
        return SkippedFile(path=shown, reason=f"row {number}: {error}")
    if kind in (Kind.BOX, Kind.OBJECT) and box is None:
        return SkippedFile(path=shown, reason=f"row {number}: a box needs xmin, ymin, xmax and ymax")
    label = row.get("class", "") if kind is not Kind.FIELD else ""
    if kind is Kind.BOX and not label:
        kind, label = Kind.OBJECT, "wbc"
    return Candidate(
        path=path, shown=shown, kind=kind, label=label,
        box=box if kind in (Kind.BOX, Kind.OBJECT) else None, source=row.get("source", ""), site=row.get("site", ""),
        group=row.get("group", ""), split=row.get("split") or None,
    )  # fmt: skip


def inside(root: Path, relative: str) -> Path:
    """Return ``root / relative``; a ValueError says why it cannot be."""
    if not relative or "\0" in relative:
        raise ValueError("the path is empty")
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("the path leaves the data folder")
    return root / path


def _box(row: dict[str, str]) -> Box | None:
    texts = [row.get(name, "") for name in _COORDINATES]
    if not any(texts):
        return None
    try:
        x0, y0, x1, y1 = (round(float(text)) for text in texts)
    except (ValueError, OverflowError):
        raise ValueError("the box coordinates are not numbers") from None
    if x0 >= x1 or y0 >= y1:
        raise ValueError("the box is empty")
    return x0, y0, x1, y1
