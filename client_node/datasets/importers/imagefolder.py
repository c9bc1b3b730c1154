"""Importer of a folder whose subfolders are named by class: ``neutrophil/0001.jpg``, ``eosinophils/…``."""

from collections.abc import Iterator
from pathlib import Path

from client_node.datasets.images import IMAGE_SUFFIXES
from client_node.datasets.importers.candidate import Candidate, Finding
from client_node.datasets.importers.names import NO_NAMES, Names, class_of
from client_node.datasets.labelled import Kind
from client_node.datasets.splits import Split
from shared.contracts.analysis import SkippedFile

_SPLIT_FOLDERS = {"train": Split.TRAIN, "val": Split.VAL, "valid": Split.VAL, "test": Split.TEST}


def fits(root: Path, names: Names = NO_NAMES) -> bool:
    """Whether a subfolder of ``root`` (or of its ``train``/``val``/``test``) names a class, or one of ``names``."""
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    inner = [sub for folder in folders if folder.name.lower() in _SPLIT_FOLDERS for sub in folder.iterdir()]
    return any(class_of(folder.name, names) for folder in [*folders, *inner] if folder.is_dir())


def candidates(root: Path) -> Iterator[Finding]:
    """Yield one finding a file; the class is the nearest folder's name, a split folder may stand above it."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        shown = path.relative_to(root).as_posix()
        if len(parts) < 2:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield SkippedFile(path=shown, reason="the image stands in no class folder")
            continue
        split = next((_SPLIT_FOLDERS[part.lower()] for part in parts[:-1] if part.lower() in _SPLIT_FOLDERS), None)
        yield Candidate(path=path, shown=shown, kind=Kind.CELL, label=parts[-2], split=split)
