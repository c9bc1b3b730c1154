"""The one way in: pick the layout, read each file once, store what is good, list what is not."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.catalogue_writer import Writer
from client_node.datasets.images import StoredImage, read_limited
from client_node.datasets.importers import csv, imagefolder, voc
from client_node.datasets.importers.candidate import Candidate, Finding, Progress
from client_node.datasets.importers.names import NO_NAMES, UNKNOWN, Names, class_of
from client_node.datasets.labelled import Box, Kind, MarkedObject, NewItem
from client_node.datasets.splits import split_for
from client_node.datasets.synthetic import MARKER, make_synthetic
from shared.contracts.analysis import ImportOutput, SkippedFile
from shared.contracts.errors import DataInvalidError, NoLabelsError, NotFoundError, UsageError
from shared.contracts.objects import ObjectKind, parse_kind
from shared.contracts.ontology import CellClass

FORMATS = ("auto", "imagefolder", "csv", "voc", "synthetic")
_NO_LABELS = (
    "No labels were found in {name}: put a labels.csv (columns path, class) into it, or name one with "
    "--labels, or sort the images into folders named by class, or add Pascal VOC files."
)


def import_source(
    home: Path,
    src: Path,
    fmt: str = "auto",
    progress: Progress | None = None,
    *,
    labels: Path | None = None,
    site: str | None = None,
    names: Names = NO_NAMES,
) -> ImportOutput:
    """Import the labelled images of ``src`` into the catalogue of ``home``; rows and images, all or nothing.

    Args:
        home: the node's home folder.
        src: a folder, or a label file (its folder is then the image root).
        fmt: one of `FORMATS`. ``synthetic`` reads a folder that `make_synthetic` made (made where missing).
        progress: called with (done, total) as rows are handled.
        labels: a label file elsewhere whose paths are relative to ``src``.
        site: take only the rows of this site (label files only).
        names: the hospital's own names for classes, see `names.parse_names`; remembered for later imports.

    Raises:
        NoLabelsError: nothing in ``src`` is labelled.
        NotFoundError: there is no ``src``.
        NoSpaceError: the disk is full; nothing of this import was kept.
        UsageError: an unknown format.
    """
    names = {**Catalogue.names_in(home), **names}
    findings = _findings(Path(src), fmt, labels, names)
    if site is not None:
        findings = [one for one in findings if not isinstance(one, Candidate) or one.site == site]
    if not findings:
        raise NoLabelsError(_NO_LABELS.format(name=Path(src).name))
    skipped = [one for one in findings if isinstance(one, SkippedFile)]
    unread = {one.path for one in skipped}
    found = [one for one in findings if isinstance(one, Candidate)]
    counts: Counter[CellClass] = Counter()
    objects: Counter[ObjectKind] = Counter()
    imported = done = 0
    # Rows of one image are taken together: it is read, hashed and decoded once. The sort is stable.
    found.sort(key=lambda one: one.path)
    with Catalogue(home).writing() as writer:
        writer.remember(names)
        for path, rows in groupby(found, key=lambda one: one.path):
            batch = list(rows)
            before = len(skipped)
            items = _items(writer, path, batch, skipped, names=names, default_source=_source_name(Path(src)))
            imported += writer.add(items)
            objects.update(_marked(writer, batch, items, skipped))
            if len(skipped) == before and not any(row.shown in unread for row in batch):
                _complete(writer, batch, items)
            counts.update(item.cls for item in items if item.cls is not None)
            done += len(batch)
            if progress is not None:
                progress(done, len(found))
        writer.unmapped(_unmapped(found, names, _source_name(Path(src))))
    classes = {cls: counts[cls] for cls in CellClass if counts[cls]}
    marked = {kind: objects[kind] for kind in ObjectKind if objects[kind]}
    return ImportOutput(imported=imported, skipped=tuple(skipped), classes=classes, objects=marked)


def _findings(src: Path, fmt: str, labels: Path | None, names: Names) -> list[Finding]:
    if fmt not in FORMATS:
        raise UsageError(f"Unknown format {fmt!r}: use one of {', '.join(FORMATS)}.")
    if fmt == "synthetic" and not (src.is_file() or (src.is_dir() and any(src.iterdir()))):
        make_synthetic(src)
    if not src.exists():
        raise NotFoundError(f"There is no {src}: check the path.")
    if src.is_file():
        if src.suffix.lower() != ".csv":
            raise DataInvalidError("Import takes a folder or a label file (.csv), not a single image.")
        src, labels = src.parent, labels or src
    if fmt == "synthetic" and not (src / MARKER).exists():
        raise DataInvalidError(f"{src.name} holds no synthetic smears (there is no {MARKER} file in it).")
    return list(_read(src, fmt, labels, names))


def _read(src: Path, fmt: str, labels: Path | None, names: Names) -> Iterable[Finding]:
    if labels is not None or fmt in ("csv", "synthetic") or (fmt == "auto" and (src / "labels.csv").is_file()):
        return csv.candidates(src, labels or src / "labels.csv")
    if fmt in ("auto", "voc") and voc.fits(src):
        return voc.candidates(src)
    if fmt in ("auto", "imagefolder") and imagefolder.fits(src, names):
        return imagefolder.candidates(src)
    raise NoLabelsError(_NO_LABELS.format(name=src.name))


def _source_name(src: Path) -> str:
    return (src.parent if src.is_file() else src).resolve().name or "local"


def _items(
    writer: Writer, path: Path, rows: list[Candidate], skipped: list[SkippedFile], *, names: Names, default_source: str
) -> list[NewItem]:
    """Store one image with its rows; nothing is stored where no row is usable."""
    usable: list[tuple[Candidate, CellClass | None]] = []
    for row in rows:
        if row.kind is Kind.OBJECT:
            continue
        cls = class_of(row.label, names) if row.label else None
        if row.kind is not Kind.FIELD and cls is None:
            reason = f"{UNKNOWN}{row.label!r}" if row.label else "the row names no class"
            skipped.append(SkippedFile(path=row.shown, reason=reason))
        else:
            usable.append((row, cls))
    if not usable:
        return []
    try:
        image = writer.put_image(read_limited(path))
    except DataInvalidError as error:
        skipped.extend(SkippedFile(path=row.shown, reason=error.message) for row, _ in usable)
        return []
    items = []
    for row, cls in usable:
        # An image without a group is its own group; by content, so that a renamed copy stays with it.
        group = row.group or f"image-{image.sha256[:16]}"
        try:
            split = split_for(group, row.split)
        except ValueError:
            skipped.append(SkippedFile(path=row.shown, reason=f"unknown split {row.split!r}"))
            continue
        if row.box is not None and not _fits(row.box, image):
            skipped.append(SkippedFile(path=row.shown, reason="the box leaves the image"))
            continue
        source = row.source or default_source
        items.append(NewItem(image.sha256, row.kind, row.box, cls, source, row.site or source, group, split))
    return items


def _unmapped(found: list[Candidate], names: Names, default_source: str) -> Counter[tuple[str, str]]:
    """Count, by (data set, site), the cells whose label nobody knows; 0 where there are none (any more)."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in found:
        source = row.source or default_source
        cell = row.kind not in (Kind.FIELD, Kind.OBJECT)
        counts[source, row.site or source] += bool(cell and row.label and class_of(row.label, names) is None)
    return counts


def _marked(
    writer: Writer, rows: list[Candidate], items: list[NewItem], skipped: list[SkippedFile]
) -> Counter[ObjectKind]:
    """Keep the objects of an image that was taken in, and count them."""
    found: list[MarkedObject] = []
    for row in rows:
        if row.kind is not Kind.OBJECT:
            continue
        kind = parse_kind(row.label)
        if kind is None or row.box is None:
            skipped.append(SkippedFile(path=row.shown, reason=f"unknown object {row.label!r}"))
        elif not items:
            skipped.append(SkippedFile(path=row.shown, reason="an object's image has no row of its own (kind field)"))
        else:
            found.append(MarkedObject(row.box, kind))
    if items:
        writer.mark(items[0].image_sha256, found)
    return Counter(one.kind for one in found)


def _complete(writer: Writer, rows: list[Candidate], items: list[NewItem]) -> None:
    """Note that a field is marked completely: it came with marks (the caller knows that none was left out)."""
    fields = [item for item in items if item.kind is Kind.FIELD]
    if fields and any(row.kind in (Kind.BOX, Kind.OBJECT) for row in rows):
        writer.complete(fields[0].image_sha256)


def _fits(box: Box, image: StoredImage) -> bool:
    """Whether the box lies in the image; annotation tools are off by a pixel at the border."""
    return box[0] >= -1 and box[1] >= -1 and box[2] <= image.width + 1 and box[3] <= image.height + 1
