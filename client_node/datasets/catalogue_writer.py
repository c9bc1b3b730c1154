"""What is written into a node's catalogue: its tables, and one transaction over rows and images."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from client_node.datasets.images import ImageStore, StoredImage
from client_node.datasets.labelled import Box, MarkedObject, NewItem, Origin, same_cell
from shared.contracts.ontology import CellClass

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS image (
    sha256 TEXT PRIMARY KEY, relative TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS item (
    hash TEXT PRIMARY KEY,
    image_sha256 TEXT NOT NULL REFERENCES image(sha256),
    kind TEXT NOT NULL CHECK (kind IN ('cell', 'box', 'field')),
    x0 INTEGER, y0 INTEGER, x1 INTEGER, y1 INTEGER,
    class TEXT, source TEXT NOT NULL, site TEXT NOT NULL, grp TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
    origin TEXT NOT NULL CHECK (origin IN ('import', 'feedback')),
    smear_id TEXT, cell_id TEXT, added_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS object (
    image_sha256 TEXT NOT NULL REFERENCES image(sha256),
    x0 INTEGER NOT NULL, y0 INTEGER NOT NULL, x1 INTEGER NOT NULL, y1 INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (image_sha256, x0, y0, x1, y1)
) STRICT;
CREATE TABLE IF NOT EXISTS complete (image_sha256 TEXT PRIMARY KEY REFERENCES image(sha256)) STRICT;
CREATE TABLE IF NOT EXISTS name (label TEXT PRIMARY KEY, class TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS unmapped (
    source TEXT NOT NULL, site TEXT NOT NULL, cells INTEGER NOT NULL, PRIMARY KEY (source, site)
) STRICT;
CREATE INDEX IF NOT EXISTS item_split ON item(split, class);
CREATE INDEX IF NOT EXISTS item_group ON item(grp);
CREATE INDEX IF NOT EXISTS item_image ON item(image_sha256);
"""

_VERSION: Final = 1
# Before version 1 nobody had written down which fields are marked completely: those that came with marks.
_UPGRADE: Final = f"""
INSERT OR IGNORE INTO complete SELECT image_sha256 FROM item AS field WHERE kind = 'field' AND (
    EXISTS (SELECT 1 FROM item WHERE image_sha256 = field.image_sha256 AND kind = 'box' AND origin = 'import')
    OR EXISTS (SELECT 1 FROM object WHERE image_sha256 = field.image_sha256)
);
PRAGMA user_version = {_VERSION};
"""

_INSERT_ITEM: Final = """
INSERT INTO item (hash, image_sha256, kind, x0, y0, x1, y1, class, source, site, grp, split, origin, smear_id,
                  cell_id, added_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hash) DO UPDATE SET kind = excluded.kind, class = excluded.class, source = excluded.source,
    site = excluded.site, grp = excluded.grp, split = excluded.split, origin = excluded.origin,
    smear_id = excluded.smear_id, cell_id = excluded.cell_id, added_at = excluded.added_at
"""
# A reader's corrected label must survive a later import of the same folder.
_KEEP_FEEDBACK: Final = " WHERE item.origin <> 'feedback' OR excluded.origin = 'feedback'"


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none, and bring older ones up to date."""
    connection.executescript(_SCHEMA)
    if connection.execute("PRAGMA user_version").fetchone()[0] < _VERSION:
        connection.executescript(_UPGRADE)


class Writer:
    """One transaction of a catalogue: images and rows, all or nothing."""

    def __init__(self, connection: sqlite3.Connection, store: ImageStore) -> None:
        self._connection = connection
        self._store = store
        self._now = datetime.now(UTC).isoformat(timespec="seconds")

    def put_image(self, data: bytes) -> StoredImage:
        """Store an image; see `ImageStore.put` for the errors."""
        stored = self._store.put(data)
        self._connection.execute(
            "INSERT OR IGNORE INTO image (sha256, relative, width, height) VALUES (?, ?, ?, ?)",
            (stored.sha256, stored.relative, stored.width, stored.height),
        )
        return stored

    def add(self, items: Iterable[NewItem]) -> int:
        """Add rows; the same cell again replaces its row, unless that holds a reader's label."""
        rows = [self._values(item) for item in items]
        self._connection.executemany(_INSERT_ITEM + _KEEP_FEEDBACK, rows)
        return len(rows)

    def mark(self, image_sha256: str, objects: Iterable[MarkedObject]) -> int:
        """Add objects of a field; the same box again replaces what it was."""
        rows = [(image_sha256, *one.box, one.kind.value) for one in objects]
        self._connection.executemany("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?)", rows)
        return len(rows)

    def complete(self, image_sha256: str) -> None:
        """Note that all white cells of a field are marked."""
        self._connection.execute("INSERT OR IGNORE INTO complete VALUES (?)", (image_sha256,))

    def remember(self, names: Mapping[str, CellClass]) -> None:
        """Note what the hospital's own names mean, for imports to come; the same name again replaces what it meant."""
        rows = [(label, cls.value) for label, cls in names.items()]
        self._connection.executemany("INSERT OR REPLACE INTO name VALUES (?, ?)", rows)

    def unmapped(self, cells: Mapping[tuple[str, str], int]) -> None:
        """Note how many cells of each (data set, site) an import left out as nobody knows their label."""
        rows = [(source, site, count) for (source, site), count in cells.items()]
        self._connection.executemany("INSERT OR REPLACE INTO unmapped VALUES (?, ?, ?)", rows)

    def supersede(self, item: NewItem, instead_of: Collection[tuple[str, Box | None]] = ()) -> None:
        """Add a reader's label: it replaces the rows of the cell and moves its whole group into training.

        ``instead_of``: ids of cells that it was split or merged from, and where in the same image they lie: their rows
        go too, be they of an import or of an earlier label, but not those of its other half.
        A group is never torn apart: were only this cell moved, its near duplicates would leak from test.
        """
        rows = self._connection.execute(
            "SELECT hash, x0, y0, x1, y1, origin FROM item WHERE image_sha256 = ? AND kind <> 'field'",
            (item.image_sha256,),
        ).fetchall()
        for row in rows:
            box = None if row[1] is None else (row[1], row[2], row[3], row[4])
            imported = row[5] == Origin.IMPORT.value
            replaced = imported and any(other and same_cell(box, other) for _, other in instead_of)
            if same_cell(box, item.box) or replaced:
                self._connection.execute("DELETE FROM item WHERE hash = ?", (row[0],))
        self._connection.executemany(
            "DELETE FROM item WHERE smear_id = ? AND cell_id = ? AND origin = 'feedback'",
            [(item.smear_id, cell) for cell, _ in instead_of],
        )
        self._connection.execute("UPDATE item SET split = 'train' WHERE grp = ?", (item.group,))
        self.add([item])

    def _values(self, item: NewItem) -> tuple[str | int | None, ...]:
        box = item.box or (None, None, None, None)
        head = (item.hash, item.image_sha256, item.kind.value, *box, item.cls.value if item.cls else None)
        middle = (item.source, item.site, item.group, item.split.value, item.origin.value)
        return (*head, *middle, item.smear_id, item.cell_id, self._now)
