"""Importer of Pascal VOC annotations: one XML file an image, one object a cell."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree  # type: ignore[import-untyped]  # ships no type information
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]  # as above

from client_node.datasets.images import IMAGE_SUFFIXES
from client_node.datasets.importers.candidate import UNREADABLE_TEXT, Candidate, Finding, find_images
from client_node.datasets.labelled import Box, Kind
from shared.contracts.analysis import SkippedFile
from shared.contracts.objects import parse_kind

_FOLDERS = (".", "../annotations", "../Annotations")
"""Where an image's annotation may lie, from the image's folder."""


def fits(root: Path) -> bool:
    """Whether an XML file lies below ``root``."""
    return next(root.rglob("*.xml"), None) is not None


def candidates(root: Path) -> Iterator[Finding]:
    """Yield the field and each typed cell of every annotation file below ``root``."""
    images = {path.stem: path for path in find_images(root, IMAGE_SUFFIXES)}
    for file in sorted(root.rglob("*.xml")):
        shown = file.relative_to(root).as_posix()
        annotation = _annotation(file)
        if isinstance(annotation, str):
            yield SkippedFile(path=shown, reason=annotation)
            continue
        # The image beside the annotation counts, not the path inside it: data sets are moved and renamed.
        image = images.get(file.stem) or images.get(Path(annotation.findtext("filename") or "-").stem)
        if image is None:
            yield SkippedFile(path=shown, reason="the annotation's image is missing")
            continue
        yield from _objects(annotation, image, root)


def objects_beside(image: Path, root: Path) -> Iterator[Candidate]:
    """Yield the objects of the annotation that lies beside ``image`` (or in ``annotations``), without their classes.

    A label file names the cells; only such an annotation tells where the red cells and platelets are.
    """
    for folder in _FOLDERS:
        file = image.parent / folder / f"{image.stem}.xml"
        if file.is_file() and not isinstance(annotation := _annotation(file), str):
            found = (one for one in _objects(annotation, image, root) if isinstance(one, Candidate))
            yield from (one for one in found if one.kind is Kind.OBJECT)
            return


def _annotation(file: Path) -> Element | str:
    """Return the annotation in ``file``, or what is wrong with it."""
    try:
        annotation: Element | None = ElementTree.parse(file).getroot()
    except (ParseError, DefusedXmlException, ValueError, *UNREADABLE_TEXT):
        return "the annotation is no readable XML"
    if annotation is None or annotation.tag != "annotation":
        return "the file is no Pascal VOC annotation"
    return annotation


def _objects(annotation: Element, image: Path, root: Path) -> Iterator[Finding]:
    shown = image.relative_to(root).as_posix()
    group = image.stem
    yield Candidate(path=image, shown=shown, kind=Kind.FIELD, label="", group=group)
    for item in annotation.iter("object"):
        name = (item.findtext("name") or "").strip()
        box = _box(item)
        if box is None:
            yield SkippedFile(path=shown, reason=f"a box of {name!r} has no usable coordinates")
            continue
        # A box known to be a white cell but not which teaches where cells are, as red cells and platelets do.
        kind = Kind.BOX if parse_kind(name) is None else Kind.OBJECT
        yield Candidate(path=image, shown=shown, kind=kind, label=name, box=box, group=group)


def _box(item: Element) -> Box | None:
    try:
        x0, y0, x1, y1 = (
            round(float(item.findtext(f"bndbox/{name}") or "")) for name in ("xmin", "ymin", "xmax", "ymax")
        )
    except (ValueError, OverflowError):
        return None
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
