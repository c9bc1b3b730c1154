"""Bringing a database to the schema that this software needs."""

import io
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from server.db.session import engine_for
from shared.contracts.errors import ConfigError, ServiceUnavailableError

INITIAL = "20261123"
MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"


def upgrade(url: str) -> str:
    """Apply all migrations that are missing; return the revision the database then has.

    Raises:
        ServiceUnavailableError: the database cannot be reached, or stayed locked.
        ConfigError: it was written by newer software.
    """
    with _configured(url) as config:
        command.upgrade(config, "head")
    return newest()


def check(url: str) -> bool:
    """Return whether the database is exactly what the tables say; for tests and `migrate --check`."""
    with _configured(url) as config:
        try:
            command.check(config)
        except CommandError:
            return False
    return True


def revise(url: str, message: str, revision: str) -> None:
    """Write a migration from the difference between ``url`` and the tables; for developers."""
    with _configured(url) as config:
        command.revision(config, message=message, autogenerate=True, rev_id=revision)


def restate_initial() -> None:
    """Write the initial migration anew from the tables: only while no installation exists that ran it."""
    for old in (MIGRATIONS / "versions").glob("*_initial_tables.py"):
        old.unlink()
    with TemporaryDirectory() as folder:
        revise(f"sqlite:///{folder}/empty.sqlite", "Initial tables", INITIAL)


def newest() -> str:
    """Return the newest revision this software knows."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""


def current(url: str) -> str | None:
    """Return the database's revision; None for an empty database."""
    engine = engine_for(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


@contextmanager
def _configured(url: str) -> Iterator[Config]:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    engine = engine_for(url)
    if sqlite := engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            yield config
            if sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                raise ConfigError(
                    "After the migration rows would refer to none: nothing was changed; restore a backup."
                )
    except OperationalError:
        raise ServiceUnavailableError(
            "The database cannot be reached, or a table stayed locked; check it is up, then migrate again."
        ) from None
    except CommandError as error:
        if "locate revision" in str(error):
            raise ConfigError("The database was written by newer software; update this installation.") from None
        raise
    finally:
        engine.dispose()


def _without_foreign_keys(connection: sqlite3.Connection, _record: object) -> None:
    """SQLite changes a table by making it anew and dropping the old one, whose rows others refer to meanwhile; and the
    pragma has no effect inside a transaction.
    """
    connection.execute("PRAGMA foreign_keys=OFF").close()
