"""Importer of Pascal VOC annotations: one XML file an image, one object a cell."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree  # type: ignore[import-untyped]  # ships no type information
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]  # as above

from client_node.datasets.catalogue import Box, Kind
from client_node.datasets.images import IMAGE_SUFFIXES
from client_node.datasets.importers.candidate import UNREADABLE_TEXT, Candidate, Finding, find_images
from shared.contracts.analysis import SkippedFile

# Objects of a field that are no nucleated cell: not labels of ours, and not worth a line each in the report.
_NOT_CELLS = frozenset({"rbc", "red_blood_cell", "platelets", "platelet"})
# A box known to be a white cell but not which: it cannot train a classifier.
_UNTYPED = frozenset({"wbc", "white_blood_cell", "leukocyte"})


def fits(root: Path) -> bool:
    """Whether an XML file lies below ``root``."""
    return next(root.rglob("*.xml"), None) is not None


def candidates(root: Path) -> Iterator[Finding]:
    """Yield the field and each typed cell of every annotation file below ``root``."""
    images = {path.stem: path for path in find_images(root, IMAGE_SUFFIXES)}
    for file in sorted(root.rglob("*.xml")):
        shown = file.relative_to(root).as_posix()
        try:
            annotation = ElementTree.parse(file).getroot()
        except (ParseError, DefusedXmlException, ValueError, *UNREADABLE_TEXT):
            yield SkippedFile(path=shown, reason="the annotation is no readable XML")
            continue
        if annotation is None or annotation.tag != "annotation":
            yield SkippedFile(path=shown, reason="the file is no Pascal VOC annotation")
            continue
        # The image beside the annotation counts, not the path inside it: data sets are moved and renamed.
        image = images.get(file.stem) or images.get(Path(annotation.findtext("filename") or "-").stem)
        if image is None:
            yield SkippedFile(path=shown, reason="the annotation's image is missing")
            continue
        yield from _objects(annotation, image, root)


def _objects(annotation: Element, image: Path, root: Path) -> Iterator[Finding]:
    shown = image.relative_to(root).as_posix()
    group = image.stem
    yield Candidate(path=image, shown=shown, kind=Kind.FIELD, label="", group=group)
    for item in annotation.iter("object"):
        name = (item.findtext("name") or "").strip()
        if name.lower() in _NOT_CELLS:
            continue
        if name.lower() in _UNTYPED:
            yield SkippedFile(path=shown, reason=f"the white-cell type of a box is not given ({name})")
            continue
        box = _box(item)
        if box is None:
            yield SkippedFile(path=shown, reason=f"a box of {name!r} has no usable coordinates")
            continue
        yield Candidate(path=image, shown=shown, kind=Kind.BOX, label=name, box=box, group=group)


def _box(item: Element) -> Box | None:
    try:
        x0, y0, x1, y1 = (
            round(float(item.findtext(f"bndbox/{name}") or "")) for name in ("xmin", "ymin", "xmax", "ymax")
        )
    except (ValueError, OverflowError):
        return None
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
