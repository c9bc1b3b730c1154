"""Which images make up which smear, and whether an image is a field or one cell of a gallery."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from client_node.datasets.images import IMAGE_SUFFIXES
from client_node.datasets.importers.csv import inside, read_rows
from shared.contracts.errors import HematovisionError, NotFoundError, NothingToDoError
from shared.vision.images import size_of
from shared.vision.slides import SUFFIXES, is_slide, slide_series

_LARGEST_CELL_IMAGE: Final = 450
_MOST_ASPECT: Final = 1.25
_TABLES: Final = ("smear.csv", "labels.csv")


class ImageKind(StrEnum):
    """What one image shows."""

    FIELD = "field"
    CELL = "cell"
    SLIDE = "slide"
    """Too large to be read whole: cut into fields."""


class SmearKind(StrEnum):
    """What the images of a smear are; ``auto`` looks at their size."""

    AUTO = "auto"
    FIELDS = "fields"
    GALLERY = "gallery"


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image to analyse."""

    path: Path
    kind: ImageKind


@dataclass(slots=True)
class SmearPlan:
    """A smear to analyse."""

    name: str
    images: list[PlannedImage] = field(default_factory=list)
    pseudo: bool = False
    synthetic: bool = False


def plan_smears(paths: Sequence[Path], kind: SmearKind = SmearKind.AUTO) -> list[SmearPlan]:
    """Return the smears that ``paths`` hold, in the order given.

    A folder is one smear, unless the column ``smear`` of its ``smear.csv`` or ``labels.csv`` says otherwise; a folder
    that holds only folders is one smear each; loose files of one folder are one smear together. The column ``kind``
    (field, cell) overrides what the size of an image suggests. A ``smear.json`` beside the images may mark them:
    ``{"pseudo": true, "synthetic": true}``.

    Raises:
        NotFoundError: a path does not exist.
        NothingToDoError: there is no image in any of them.
    """
    plans: list[SmearPlan] = []
    loose: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in map(Path, paths):
        if path.is_dir():
            plans.extend(_plan_folder(path, kind))
        elif path.exists():
            loose[path.parent].append(path)
        else:
            raise NotFoundError(f"There is no {path}: check the path.")
    plans.extend(_plan(folder.resolve().name, folder, files, {}, kind) for folder, files in loose.items())
    if not plans:
        raise NothingToDoError("No images were found: give image files, or folders that hold them.")
    return plans


def _plan_folder(folder: Path, kind: SmearKind) -> list[SmearPlan]:
    table = _table(folder)
    named = _by_smear(folder, table)
    if named:
        return [_plan(name, folder, files, _kinds(folder, table), kind) for name, files in named.items()]
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _looks_like_image(path)]
    if files:
        return [_plan(folder.resolve().name, folder, files, _kinds(folder, table), kind)]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [plan for path in inner for plan in _plan_folder(path, kind)]


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | SUFFIXES and not path.name.startswith(".")


def _table(folder: Path) -> list[dict[str, str]]:
    """The rows that describe a folder's images; a table that is no label file describes nothing."""
    for name in _TABLES:
        if (folder / name).is_file():
            try:
                return read_rows(folder / name, needed=("path",))
            except HematovisionError:
                return []
    return []


def _by_smear(folder: Path, table: Iterable[dict[str, str]]) -> dict[str, list[Path]]:
    named: defaultdict[str, dict[Path, None]] = defaultdict(dict)
    for row in table:
        try:
            path = inside(folder, row.get("path", ""))
        except ValueError:
            continue
        if row.get("smear"):
            named[row["smear"]][path] = None
    return {name: list(files) for name, files in named.items()}


def _kinds(folder: Path, table: Iterable[dict[str, str]]) -> dict[Path, ImageKind]:
    kinds = {}
    for row in table:
        stated = {"cell": ImageKind.CELL, "gallery": ImageKind.CELL, "field": ImageKind.FIELD, "box": ImageKind.FIELD}
        known = stated.get(row.get("kind", "").lower())
        if known is not None:
            kinds[folder / row.get("path", "")] = known
    return kinds


def _plan(name: str, folder: Path, files: list[Path], kinds: dict[Path, ImageKind], kind: SmearKind) -> SmearPlan:
    marks = _marks(files[0].parent if files else folder)
    plan = SmearPlan(name, pseudo=bool(marks.get("pseudo")), synthetic=bool(marks.get("synthetic")))
    files, slides = _apart(files)
    if kind is SmearKind.AUTO:
        usual = _majority(files)
        plan.images = [PlannedImage(path, kinds.get(path, usual)) for path in files]
    else:
        forced = ImageKind.CELL if kind is SmearKind.GALLERY else ImageKind.FIELD
        plan.images = [PlannedImage(path, forced) for path in files]
    plan.images += [PlannedImage(path, ImageKind.SLIDE) for path in slides]
    return plan


def _apart(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the ordinary images, and one file of each slide: a DICOM series is many files."""
    images, slides, series = [], [], set[str]()
    for path in files:
        if not is_slide(path):
            images.append(path)
        elif (name := slide_series(path)) not in series:
            series.add(name)
            slides.append(path)
    return images, slides


def smear_flags(plan: SmearPlan) -> frozenset[str] | None:
    """Return the flags that a smear's ``smear.json`` says it should get, to check rules by; None where it says nothing.

    ``{"flags": ["image.quality"]}``; an empty list means none.
    """
    stated = _marks(plan.images[0].path.parent).get("flags") if plan.images else None
    return frozenset(str(one) for one in stated) if isinstance(stated, list) else None


def _marks(folder: Path) -> dict[str, object]:
    try:
        marks = json.loads((folder / "smear.json").read_text())
    except (OSError, ValueError):
        return {}
    return marks if isinstance(marks, dict) else {}


def _majority(files: Iterable[Path]) -> ImageKind:
    """An export holds one kind: what most of its images look like counts for all."""
    votes = Counter(kind for kind in map(_guess, files) if kind is not None)
    return ImageKind.CELL if votes[ImageKind.CELL] > votes[ImageKind.FIELD] else ImageKind.FIELD


def _guess(path: Path) -> ImageKind | None:
    size = size_of(path)
    if size is None:
        return None
    width, height = size
    small = max(width, height) <= _LARGEST_CELL_IMAGE
    return ImageKind.CELL if small and max(width, height) <= _MOST_ASPECT * min(width, height) else ImageKind.FIELD
