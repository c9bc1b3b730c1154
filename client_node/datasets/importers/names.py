"""A hospital's own names for classes of cells, as ``--map NAME=class`` gives them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from shared.contracts.analysis import SkippedFile
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass, label_key, parse_class

UNKNOWN: Final = "unknown label "
"""Begins the reason why a row with a name that nobody knows is skipped."""
Names = Mapping[str, CellClass]
"""The hospital's name, as `label_key` writes it → class."""
NO_NAMES: Final[Names] = MappingProxyType({})


def parse_names(given: Iterable[str]) -> dict[str, CellClass]:
    """Return what ``NAME=class`` says, one after the other.

    Raises:
        UsageError: no such pair, no such class, or two classes for one name.
    """
    names: dict[str, CellClass] = {}
    for pair in given:
        name, mark, wanted = pair.rpartition("=")
        if not mark or not name.strip():
            raise UsageError(f"--map takes NAME=class, for example --map 'Stabkernige=band_neutrophil', not {pair!r}.")
        cls = parse_class(wanted)
        if cls is None:
            known = ", ".join(one.value for one in CellClass)
            raise UsageError(f"There is no class {wanted.strip()!r}. Classes: {known}.")
        if names.setdefault(label_key(name), cls) is not cls:
            raise UsageError(f"--map gives {name.strip()!r} two classes; a name has one.")
    return names


def class_of(label: str, names: Names) -> CellClass | None:
    """Return the class of a label, the hospital's own names first; None: nobody knows it."""
    return names.get(label_key(label)) or parse_class(label)


def advice(skipped: Iterable[SkippedFile]) -> list[str]:
    """Return a line for each name that nobody knows: how many rows have it, and what to do; the most frequent first."""
    unknown = Counter(one.reason.removeprefix(UNKNOWN) for one in skipped if one.reason.startswith(UNKNOWN))
    return [
        f"{count} with {UNKNOWN}{label}: say what it means with --map NAME=class."
        for label, count in unknown.most_common()
    ]
