"""Tests of transactions."""

import os
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import SQLModel, select

from server.db import line
from server.db.session import Database, KeepsChangesError
from server.models import CensusRecord, Hospital


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'test.sqlite'}")
    SQLModel.metadata.create_all(made.engine)
    return made


def names(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return sorted(hospital.name for hospital in session.exec(select(Hospital)))


def names_for_writing(database: Database) -> list[str]:
    with database.session() as session:
        return sorted(hospital.name for hospital in session.exec(select(Hospital)))


def add_and_raise(database: Database, error: Exception) -> None:
    with database.session() as session:
        session.add(Hospital(id="a", name="A"))
        raise error


def test_session_commits_at_exit(database: Database) -> None:
    with database.session() as session:
        session.add(Hospital(id="a", name="A"))
    assert names(database) == ["A"]


def test_session_rolls_back_on_error(database: Database) -> None:
    with pytest.raises(RuntimeError):
        add_and_raise(database, RuntimeError())
    assert names(database) == []


def test_session_keeps_changes_of_an_error_that_says_so(database: Database) -> None:
    with pytest.raises(KeepsChangesError):
        add_and_raise(database, KeepsChangesError())
    assert names(database) == ["A"]


def test_session_lets_readers_read_while_somebody_writes(database: Database) -> None:
    with database.session() as session:
        session.add(Hospital(id="a", name="A"))
        session.flush()
        assert names(database) == []


def test_session_queues_writers_that_read_first(database: Database) -> None:
    with database.session() as session:
        session.add(Hospital(id="a", name=""))

    def append(letter: str) -> None:
        for _ in range(10):
            with database.session() as session:
                hospital = session.get_one(Hospital, "a")
                hospital.name += letter

    writers = [threading.Thread(target=append, args=(letter,)) for letter in "xyz"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(names(database)[0]) == sorted("xyz" * 10)


def test_a_commit_is_on_disk_before_it_is_told_and_holds_nobody_up_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[str] = []

    def slow_disk(descriptor: int) -> None:
        logs.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        if len(logs) == 1:
            with database.session() as another:
                another.add(Hospital(id="b", name="B"))

    monkeypatch.setattr(os, "fdatasync", slow_disk)
    with database.session() as session:
        session.add(Hospital(id="a", name="A"))
    file = database.engine.url.database
    assert logs == [f"{file}-wal"] * 2
    assert names(database) == ["A", "B"]


def test_session_that_only_reads_waits_for_no_disk(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", logs.append)
    assert names(database) == []
    assert logs == []


def test_a_database_without_a_log_waits_for_the_disk_itself(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path / 'test.sqlite'}").engine.connect() as connection:
        logged = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    with Database("sqlite://").engine.connect() as connection:
        in_memory = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    assert (logged, in_memory) == (1, 2)


def test_session_that_failed_lets_the_next_one_write(database: Database) -> None:
    with pytest.raises(RuntimeError):
        add_and_raise(database, RuntimeError())
    with database.session() as session:
        session.add(Hospital(id="b", name="B"))
    assert names(database) == ["B"]


def test_session_within_a_session_is_refused_as_a_lock_that_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "PATIENCE_SECONDS", 0.05)
    with database.session() as session:
        session.add(Hospital(id="a", name="A"))
        session.flush()
        with pytest.raises(OperationalError, match="Nobody could write"):
            names_for_writing(database)
    assert names(database) == ["A"]


def test_session_refuses_a_row_without_its_parent(database: Database) -> None:

    with pytest.raises(IntegrityError), database.session() as session:
        session.add(CensusRecord(hospital_id="nobody", census={}))
