"""The ledger holds what left, and shows when somebody changed it."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from client_node.cases.ledger import Ledger
from shared.contracts.errors import AuditBrokenError, ConfigError


def filled(home: Path) -> Ledger:
    ledger = Ledger(home)
    ledger.record(kind="case", subject="HV-00000001", what="key.json", size=10, sha256="a" * 64)
    ledger.record(kind="case", subject="HV-00000001", what="manifest.json", size=20, sha256="b" * 64)
    ledger.record(kind="update", subject="run-1", size=3000, sha256="c" * 64)
    ledger.record(kind="refusal", subject="run-2", size=0, sha256="", note="no")
    return ledger


def test_totals_count_cases_and_bytes(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    totals = ledger.totals()
    assert (totals.cases, totals.bytes_cases, totals.bytes_updates) == (1, 30, 3000)
    assert ledger.cases_since(timedelta(days=1)) == 1
    assert ledger.verify() == 4
    assert [entry.what for entry in ledger.entries(subject="HV-00000001")] == ["key.json", "manifest.json"]
    assert tmp_path.joinpath("ledger.sqlite").stat().st_mode & 0o777 == 0o600


def test_record_once_ignores_a_retry(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    part = {"kind": "case", "subject": "HV-00000001", "what": "key.json", "size": 1, "sha256": "a" * 64}
    assert ledger.record_once(**part) is not None  # type: ignore[arg-type]  # one dict for three calls
    assert ledger.record_once(**part) is None  # type: ignore[arg-type]
    assert ledger.record_once(**{**part, "sha256": "b" * 64}) is not None  # type: ignore[arg-type]
    assert ledger.verify() == 2


def test_entries_cannot_be_changed_or_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    for statement in ("UPDATE entry SET size = 1", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement", ["UPDATE entry SET size = 1 WHERE number = 2", "DELETE FROM entry WHERE number = 2"]
)
def test_verify_shows_tampering(tmp_path: Path, statement: str) -> None:
    ledger = filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    connection.execute("DROP TRIGGER entry_no_update")
    connection.execute("DROP TRIGGER entry_no_delete")
    connection.execute(statement)
    connection.close()
    with pytest.raises(AuditBrokenError, match="from entry 2"):
        ledger.verify()


def test_ledger_without_home_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ledger"):
        Ledger(tmp_path / "absent").totals()
