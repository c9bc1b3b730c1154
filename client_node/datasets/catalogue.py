"""The catalogue of a node: every labelled cell and field, its image, and the split it belongs to."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from client_node.datasets.catalogue_writer import Writer, prepare
from client_node.datasets.images import ImageStore, read_limited
from client_node.datasets.labelled import (
    Box,
    Kind,
    LabelledCell,
    LabelledField,
    MarkedObject,
    NewItem,
    Origin,
    as_predicted,
    same_cell,
)
from client_node.datasets.splits import Split
from shared.contracts.errors import ConfigError, DataInvalidError
from shared.contracts.objects import ObjectKind, kind_of
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census, ClassCensus
from shared.space import is_disk_full, space_guard


class Catalogue:
    """The labelled images of the node whose home folder is ``home``; safe to open from several processes."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home)
        self._images = self.home / "images"
        self._file = self.home / "catalogue.sqlite"
        with space_guard(self.home):
            try:
                self.home.mkdir(parents=True, exist_ok=True)
                with closing(self._connect()) as connection:
                    prepare(connection)
            except (sqlite3.DatabaseError, PermissionError, NotADirectoryError, FileExistsError) as error:
                if is_disk_full(error, self.home):
                    raise
                raise ConfigError(
                    "The node's catalogue cannot be opened: check the home folder and its permissions."
                ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=30.0, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Open a transaction over rows and images: on any error neither is kept."""
        store = ImageStore(self._images)
        with space_guard(self.home), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writer(connection, store)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                store.take_back()
                raise

    def _select(self, sql: str, values: Iterable[str] = ()) -> list[tuple[Any, ...]]:
        # Any: a column's type is known by the statement, not by sqlite3.
        with closing(self._connect()) as connection:
            return connection.execute(sql, tuple(values)).fetchall()

    @classmethod
    def names_in(cls, home: Path) -> dict[str, CellClass]:
        """Return the `names` of a home; none where there is no catalogue yet, and none is made."""
        return cls(home).names() if (Path(home) / "catalogue.sqlite").exists() else {}

    def names(self) -> dict[str, CellClass]:
        """Return what the hospital's own names mean, as imports were told: `label_key` of the name → class."""
        return {label: CellClass(cls) for label, cls in self._select("SELECT label, class FROM name")}

    def cells(
        self, *, split: Split | str | None = None, classes: Collection[CellClass] | None = None
    ) -> list[LabelledCell]:
        """Return labelled cells ordered by hash.

        With ``classes`` (what a model predicts) a cell of a subclass is returned as its parent, and a cell
        of neither is left out; without it every labelled cell is returned with its own class.
        """
        rows = self._select(
            "SELECT hash, relative, x0, y0, x1, y1, class, source, grp, origin, site, split FROM item "
            "JOIN image ON image.sha256 = item.image_sha256 "
            "WHERE kind <> 'field' AND class IS NOT NULL AND (? = '' OR split = ?) ORDER BY hash",
            (str(Split(split)) if split else "", str(Split(split)) if split else ""),
        )
        found = []
        for row in rows:
            cls: CellClass | None = CellClass(row[6])
            if classes is not None:
                cls = as_predicted(CellClass(row[6]), classes)
            if cls is None:
                continue
            box = None if row[2] is None else (row[2], row[3], row[4], row[5])
            path = self._images / row[1]
            found.append(LabelledCell(row[0], path, box, cls, row[7], row[8], Origin(row[9]), row[10], Split(row[11])))
        return found

    def fields(self, *, split: Split | str | None = None) -> list[LabelledField]:
        """Return the whole fields with what is marked in them, ordered by group."""
        wanted = str(Split(split)) if split else ""
        rows = self._select(
            "SELECT relative, sha256, width, height, source, site, grp, split, complete.image_sha256 IS NOT NULL "
            "FROM item JOIN image ON image.sha256 = item.image_sha256 "
            "LEFT JOIN complete ON complete.image_sha256 = item.image_sha256 "
            "WHERE kind = 'field' AND (? = '' OR split = ?) ORDER BY grp, hash",
            (wanted, wanted),
        )
        marked = self._marked()
        return [
            LabelledField(
                self._images / relative, sha256, width, height, source, site, group, Split(name),
                _each_once(marked.get(sha256, [])), bool(complete),
            )
            for relative, sha256, width, height, source, site, group, name, complete in rows
        ]  # fmt: skip

    def _marked(self) -> dict[str, list[MarkedObject]]:
        """What is marked in each field: first the cells that have a class, then the rest."""
        found: dict[str, list[MarkedObject]] = defaultdict(list)
        boxes = "SELECT image_sha256, x0, y0, x1, y1, class FROM item WHERE kind = 'box' AND class IS NOT NULL"
        for row in self._select(f"{boxes} ORDER BY hash"):
            found[row[0]].append(MarkedObject((row[1], row[2], row[3], row[4]), kind_of(CellClass(row[5]))))
        for row in self._select("SELECT image_sha256, x0, y0, x1, y1, kind FROM object ORDER BY x0, y0, x1, y1"):
            found[row[0]].append(MarkedObject((row[1], row[2], row[3], row[4]), ObjectKind(row[5])))
        return found

    def census(self, allows: Callable[[str], bool] = lambda _source: True) -> Census:
        """Return counts of labelled cells by source, class and split: all that may be told about the data.

        Data sets (sources) that ``allows`` does not let through are not counted, nor named.
        """
        rows = self._select(
            "SELECT source, class, sum(split = 'train'), sum(split = 'val'), sum(split = 'test') FROM item "
            "WHERE kind <> 'field' AND class IS NOT NULL GROUP BY source, class"
        )
        lines = [
            ClassCensus.model_validate(
                {"source": row[0], "class": row[1], "train": row[2], "val": row[3], "test": row[4]}
            )
            for row in rows
            if allows(row[0])
        ]
        sources = sorted({line.source for line in lines})
        groups, feedback = self._select(
            "SELECT count(DISTINCT grp), coalesce(sum(origin = 'feedback'), 0) FROM item "
            f"WHERE kind <> 'field' AND class IS NOT NULL AND source IN ({', '.join('?' * len(sources))})",
            sources,
        )[0]
        ordered = sorted(lines, key=lambda line: (line.source, line.cls.order))
        unmapped = sum(cells for source, cells in self._select("SELECT source, cells FROM unmapped") if allows(source))
        return Census(rows=tuple(ordered), groups=groups, feedback=feedback, unmapped=unmapped)

    def add_feedback(self, image: Path | bytes, cls: CellClass, smear_id: str, cell_id: str) -> str:
        """Add a reader's label for a cell of an analysed smear and return the cell's hash.

        Where the cell's original image is in the catalogue the label joins that very image; otherwise
        ``image``, the stored crop, is added. The cell goes into the training split.

        Raises:
            DataInvalidError: ``image`` cannot be read.
            NoSpaceError: the disk is full.
        """
        trace = self._trace(smear_id, cell_id)
        original = trace.get("image_sha256")
        known = self._select("SELECT grp, source, site FROM item WHERE image_sha256 = ? LIMIT 1", [original or ""])
        with self.writing() as writer:
            if original and known:
                sha256, box = original, _as_box(trace.get("box"))
                group, source, site = known[0]
            else:
                data = image if isinstance(image, bytes) else read_limited(image)
                sha256 = writer.put_image(data).sha256
                box = _as_box(trace.get("crop_box"))
                group, source, site = f"smear-{smear_id}", "feedback", "local"
            item = NewItem(
                sha256, Kind.CELL if box is None else Kind.BOX, box, cls, source, site, group, Split.TRAIN,
                Origin.FEEDBACK, smear_id, cell_id,
            )  # fmt: skip
            writer.supersede(item)
        return item.hash

    def add_marked(
        self,
        field: Path,
        box: Box,
        cls: CellClass,
        smear_id: str,
        cell_id: str,
        *,
        neighbour: str | None = None,
        instead_of: Collection[str] = (),
    ) -> str:
        """Add a cell that a reader marked in a field of an analysed smear, and return the cell's hash.

        Where the field's original image is in the catalogue the box joins that very image; otherwise ``field``, the
        stored copy, is added, not marked completely: it teaches that there is a cell, and nothing of the rest.

        Args:
            field: the stored field.
            box: of the cell in it.
            cls: its class.
            smear_id: the smear.
            cell_id: the cell's id, made by the reader's page.
            neighbour: a cell that the analysis found in the same field: it tells the field's original image.
            instead_of: cells that it was split or merged from: their boxes no longer teach.

        Raises:
            DataInvalidError: ``field`` cannot be read, or the box lies outside it.
            NoSpaceError: the disk is full.
        """
        original = self._trace(smear_id, neighbour).get("image_sha256") if neighbour else None
        known = self._select("SELECT grp, source, site FROM item WHERE image_sha256 = ? LIMIT 1", [original or ""])
        replaced = [(cell, _as_box(self._trace(smear_id, cell).get("box"))) for cell in instead_of]
        with self.writing() as writer:
            if original and known:
                sha256 = original
                group, source, site = known[0]
            else:
                stored = writer.put_image(read_limited(field))
                if not (0 <= box[0] < box[2] <= stored.width and 0 <= box[1] < box[3] <= stored.height):
                    raise DataInvalidError("The marked box lies outside the field.")
                sha256 = stored.sha256
                group, source, site = f"smear-{smear_id}", "feedback", "local"
                writer.add(
                    [NewItem(sha256, Kind.FIELD, None, None, source, site, group, Split.TRAIN, smear_id=smear_id)]
                )
            item = NewItem(
                sha256, Kind.BOX, box, cls, source, site, group, Split.TRAIN, Origin.FEEDBACK, smear_id, cell_id
            )
            writer.supersede(item, replaced)
        return item.hash

    def _trace(self, smear_id: str, cell_id: str) -> dict[str, Any]:
        """Where a stored cell came from, as the analysis wrote it (Any: JSON read from our own file)."""
        if Path(smear_id).name != smear_id:
            raise DataInvalidError("A smear id holds no path separators.")
        file = self.home / "smears" / smear_id / "cells.json"
        try:
            trace = json.loads(file.read_text())[cell_id]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return trace if isinstance(trace, dict) else {}


def _as_box(value: object) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x0, y0, x1, y1 = (int(number) for number in value)
    return x0, y0, x1, y1


def _each_once(objects: Iterable[MarkedObject]) -> tuple[MarkedObject, ...]:
    """Leave out a cell that is marked a second time, by another file or with another box."""
    kept: list[MarkedObject] = []
    for one in objects:
        if not any(same_cell(one.box, other.box) for other in kept if other.kind is one.kind):
            kept.append(one)
    return tuple(sorted(kept, key=lambda one: one.box))
