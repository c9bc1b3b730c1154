"""What an importer finds before anything is read: paths, labels and boxes as the source states them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client_node.datasets.labelled import Box, Kind
from shared.contracts.analysis import SkippedFile

UNREADABLE_TEXT: Final = (OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may become an item of the catalogue."""

    path: Path
    shown: str
    """The path as a user would recognise it: relative to the source."""
    kind: Kind
    label: str
    """As written; empty for a field."""
    box: Box | None = None
    source: str = ""
    site: str = ""
    group: str = ""
    split: str | None = None


Finding = Candidate | SkippedFile
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def find_images(root: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the image-named files below ``root`` in a fixed order; nothing hidden is looked at."""
    wanted = set(suffixes)
    found = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.suffix.lower() in wanted and not any(part.startswith(".") for part in parts) and path.is_file():
            found.append(path)
    return sorted(found)
