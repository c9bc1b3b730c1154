"""Tests of the outbox: nothing lost, nothing done twice."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlmodel import SQLModel

from server.db.session import Database
from server.models import OutboxEntry
from server.models.base import utc_now
from server.outbox import service
from shared.contracts.errors import NotFoundError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'test.sqlite'}")
    SQLModel.metadata.create_all(made.engine)
    yield made
    made.dispose()


def add(database: Database) -> int:
    with database.session() as session:
        return service.add(session, "test.do", {"n": 1}).id or 0


def entry(database: Database, entry_id: int) -> OutboxEntry:
    with database.session(read_only=True) as session:
        return session.get_one(OutboxEntry, entry_id)


def dispatch(database: Database) -> list[int]:
    sent: list[int] = []
    service.dispatch_pending(database, lambda _kind, entry_id: sent.append(entry_id))
    return sent


def test_row_of_a_failed_transaction_never_existed(database: Database) -> None:
    def add_and_fail() -> None:
        with database.session() as session:
            service.add(session, "test.do", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    assert dispatch(database) == []


def test_dispatch_once_then_run_once(database: Database) -> None:
    entry_id = add(database)
    assert dispatch(database) == [entry_id]
    assert dispatch(database) == []
    done: list[dict[str, Any]] = []
    assert service.run_entry(database, entry_id, done.append)
    assert not service.run_entry(database, entry_id, done.append)
    assert done == [{"n": 1}]
    assert entry(database, entry_id).done_at is not None


def test_row_in_hand_is_not_run_by_a_second_message(database: Database) -> None:
    entry_id = add(database)
    dispatch(database)
    inner: list[bool] = []
    assert service.run_entry(
        database, entry_id, lambda _: inner.append(service.run_entry(database, entry_id, lambda _: None))
    )
    assert inner == [False]


@pytest.mark.parametrize("error", [NotFoundError("The case is gone."), ValueError("secret detail")])
def test_failed_row_waits_longer_each_time(database: Database, error: Exception) -> None:
    entry_id = add(database)

    def fail(_payload: dict[str, Any]) -> None:
        raise error

    waits: list[float] = []
    moment = utc_now()
    for _ in range(service.MOST_ATTEMPTS):
        with time_machine.travel(moment, tick=False):
            assert dispatch(database) == [entry_id]
            assert not service.run_entry(database, entry_id, fail)
            assert dispatch(database) == []
            row = entry(database, entry_id)
            waits.append((row.not_before - moment).total_seconds())
            moment = row.not_before
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2.0, 300.0)
    business = isinstance(error, NotFoundError)
    assert row.error == ("The case is gone." if business else "unexpected: ValueError")
    # What may mend itself is tried for ever; what nobody foresaw waits for a person.
    assert (row.gave_up_at is None) is business
    with time_machine.travel(moment + timedelta(days=1)):
        assert dispatch(database) == ([entry_id] if business else [])


def test_unexpected_error_is_kept_without_inner_detail(database: Database) -> None:
    entry_id = add(database)

    def fail(_payload: dict[str, Any]) -> None:
        raise ValueError("secret detail")

    service.run_entry(database, entry_id, fail)
    assert entry(database, entry_id).error == "unexpected: ValueError"


def test_row_of_a_dead_worker_is_due_when_its_lease_ran_out(database: Database) -> None:
    entry_id = add(database)
    dispatch(database)

    class Killed(BaseException):
        pass

    def die(_payload: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        service.run_entry(database, entry_id, die)
    assert dispatch(database) == []
    with time_machine.travel(utc_now() + service.LEASE + timedelta(seconds=1)):
        assert dispatch(database) == [entry_id]
        assert service.run_entry(database, entry_id, lambda _: None)


def test_message_that_the_broker_lost_is_sent_again(database: Database) -> None:
    entry_id = add(database)
    dispatch(database)
    with time_machine.travel(utc_now() + service.MESSAGE_LOST_AFTER + timedelta(seconds=1)):
        assert dispatch(database) == [entry_id]


def test_row_stays_due_when_the_broker_is_away(database: Database) -> None:
    entry_id = add(database)

    def away(_kind: str, _entry_id: int) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        service.dispatch_pending(database, away)
    assert dispatch(database) == [entry_id]
