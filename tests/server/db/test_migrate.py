"""Tests of the schema's migrations, on both databases."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command

from server.db import migrate
from server.db.session import Database
from server.federation import repository
from server.federation.strategies.registry import FedAvgParameters, parse
from server.models import Hospital, Run
from server.models.base import utc_now
from shared.contracts.case import Priority
from shared.contracts.errors import ConfigError, ServiceUnavailableError
from tests.postgres import postgres


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """Its address."""
    with postgres() as url:
        yield url


def test_upgrade_gives_the_schema_of_the_tables_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    assert migrate.upgrade(url) == migrate.newest()
    assert migrate.current(url) == migrate.newest()
    assert migrate.check(url)


def _with_a_first_run(path: Path, *, state: str, rounds: int) -> str:
    """Return the address of a database of the first version, which holds the run ``r``."""
    url = f"sqlite:///{path}"
    with migrate._configured(url) as config:
        command.upgrade(config, migrate.INITIAL)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO federated_run (id, state, recipe, strategy, rounds, min_sites, round_deadline_seconds,"
            " created_by, created_at, stop_requested) VALUES ('r', ?, '{}', 'fedavg', ?, 2, 60, 'x',"
            " '2026-11-24 00:00:00', 0)",
            (state, rounds),
        )
    connection.close()
    return url


def test_runs_from_before_have_the_defaults_of_their_strategy(tmp_path: Path) -> None:
    url = _with_a_first_run(tmp_path / "a.sqlite", state="completed", rounds=1)
    migrate.upgrade(url)
    assert migrate.check(url)
    database = Database(url)
    with database.session(read_only=True) as session:
        run = session.get_one(Run, "r")
        assert parse(run.strategy, run.strategy_parameters) == FedAvgParameters()
    database.dispose()


def test_rounds_from_before_count_where_enough_hospitals_replied(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    url = _with_a_first_run(path, state="failed", rounds=4)
    with sqlite3.connect(path) as connection:
        for number, ended, sampled, replied in ((1, True, 3, 2), (2, True, 1, 1), (3, True, 3, 1), (4, False, 3, 3)):
            connection.execute(
                "INSERT INTO round_record (run_id, round, started_at, ended_at, sampled, replied, bytes_up, bytes_down)"
                " VALUES ('r', ?, '2026-11-24 00:00:00', ?, ?, ?, 0, 0)",
                (number, "2026-11-24 00:01:00" if ended else None, sampled, replied),
            )
    connection.close()
    migrate.upgrade(url)
    database = Database(url)
    with database.session(read_only=True) as session:
        assert [row.whole for row in repository.rounds(session, "r")] == [True, True, False, False]
    database.dispose()


def test_upgrade_twice_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    migrate.upgrade(url)
    assert migrate.upgrade(url) == migrate.newest()


def test_check_sees_a_difference(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    migrate.upgrade(url)
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("ALTER TABLE hospital DROP COLUMN target_minutes")
    connection.close()
    assert not migrate.check(url)


def test_upgrade_refuses_a_database_of_newer_software(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    migrate.upgrade(url)
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '29991231'")
    connection.close()
    with pytest.raises(ConfigError, match="newer software"):
        migrate.upgrade(url)


@pytest.mark.servers
def test_upgrade_gives_the_schema_of_the_tables_on_postgresql(postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    assert migrate.check(postgres_url)
    database = Database(postgres_url)
    with database.session() as session:
        session.add(Hospital(id="a", name="A", target_minutes={Priority.STAT.value: 60}))
    with database.session() as session:
        hospital = session.get_one(Hospital, "a")
        assert hospital.target_minutes == {"stat": 60}
        assert hospital.created_at.tzinfo is not None
        assert (utc_now() - hospital.created_at).total_seconds() < 60
    database.dispose()


@pytest.mark.servers
def test_upgrade_says_so_when_postgresql_is_away() -> None:
    with pytest.raises(ServiceUnavailableError):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")
