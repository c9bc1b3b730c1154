"""Gives some of a catalogue's labelled cells a home of their own, as a hospital that has only these."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from client_node.datasets.catalogue import Catalogue
from shared.contracts.errors import NotFoundError
from shared.space import space_guard


def write_part(source: Path, target: Path, hashes: Collection[str]) -> int:
    """Fill the home ``target`` with the cells ``hashes`` of the home ``source``; return how many it has then.

    Their images are not copied: the folder ``images`` is a link. Fields are left out, so that nothing teaches the
    finder there.

    Raises:
        NotFoundError: ``source`` holds no catalogue.
        NoSpaceError: the disk is full.
    """
    if not (source / "catalogue.sqlite").is_file():
        raise NotFoundError(f"There is no catalogue in {source}: import labelled images into it first.")
    with space_guard(target):
        target.mkdir(parents=True, exist_ok=True)
        file = target / "catalogue.sqlite"
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(source / "catalogue.sqlite")) as origin, closing(sqlite3.connect(file)) as part:
            origin.backup(part)
            part.execute("CREATE TEMP TABLE kept (hash TEXT PRIMARY KEY)")
            part.executemany("INSERT INTO kept VALUES (?)", [(one,) for one in hashes])
            part.execute("DELETE FROM item WHERE kind = 'field' OR hash NOT IN (SELECT hash FROM kept)")
            for table in ("object", "complete"):
                part.execute(f"DELETE FROM {table}")
            part.execute("DELETE FROM image WHERE sha256 NOT IN (SELECT image_sha256 FROM item)")
            part.commit()
            part.execute("VACUUM")
        images = target / "images"
        if not images.is_symlink():
            images.symlink_to((source / "images").resolve())
    return len(Catalogue(target).cells())
