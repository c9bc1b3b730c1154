"""Tests of the audit's chains and checkpoints: what a person with the database in hand could try."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE
from server.audit import service
from server.runtime import Runtime
from shared.contracts.errors import ForbiddenError
from tests.server.centres import make_runtime, principal


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A centre with two chains of three entries and a checkpoint over both."""
    made = make_runtime(tmp_path)
    with made.database.session() as session:
        for number in range(3):
            for subject in ("case:HV-00000001", "model:m1"):
                service.record(session, subject=subject, actor="system", action="test.did", data={"n": number})
    with made.database.session() as session:
        assert service.checkpoint(session, made.vault)
    yield made
    made.database.dispose()


def problems(runtime: Runtime, *statements: str) -> list[str]:
    with runtime.database.session() as session:
        for statement in statements:
            session.connection().execute(text(statement))
    with runtime.database.session(read_only=True) as session:
        found = service.verify(session, runtime.vault)
    assert found.ok is (not found.problems)
    return found.problems


def test_verify_untouched(runtime: Runtime) -> None:
    with runtime.database.session(read_only=True) as session:
        found = service.verify(session, runtime.vault)
    assert (found.ok, found.subjects, found.entries, found.checkpoints) == (True, 2, 6, 1)


def test_verify_finds_a_changed_entry(runtime: Runtime) -> None:
    found = problems(runtime, "UPDATE audit_entry SET actor = 'user:x' WHERE subject = 'model:m1' AND seq = 2")
    assert found == ["model:m1 entry 2: was changed after it was written."]


def test_verify_finds_changed_data(runtime: Runtime) -> None:
    found = problems(runtime, """UPDATE audit_entry SET data = '{"n": 7}' WHERE subject = 'model:m1' AND seq = 3""")
    assert found == ["model:m1 entry 3: was changed after it was written."]


def test_verify_finds_a_removed_middle_entry(runtime: Runtime) -> None:
    found = problems(runtime, "DELETE FROM audit_entry WHERE subject = 'model:m1' AND seq = 2")
    assert found == ["model:m1 entry 3: entry 2 before it is missing."]


def test_verify_finds_a_removed_first_entry(runtime: Runtime) -> None:
    found = problems(runtime, "DELETE FROM audit_entry WHERE subject = 'model:m1' AND seq = 1")
    assert found == ["model:m1 entry 2: entry 1 before it is missing."]


def test_verify_finds_a_removed_and_renumbered_entry(runtime: Runtime) -> None:
    found = problems(
        runtime,
        "DELETE FROM audit_entry WHERE subject = 'model:m1' AND seq = 2",
        "UPDATE audit_entry SET seq = 2 WHERE subject = 'model:m1' AND seq = 3",
    )
    assert found[0] == "model:m1 entry 2: does not continue the entry before it."


def test_verify_finds_a_cut_off_tail(runtime: Runtime) -> None:
    found = problems(runtime, "DELETE FROM audit_entry WHERE subject = 'model:m1' AND seq = 3")
    assert found == ["model:m1 entry 3: is gone, though checkpoint 1 holds it."]


def test_verify_finds_a_removed_subject(runtime: Runtime) -> None:
    found = problems(runtime, "DELETE FROM audit_entry WHERE subject = 'model:m1'")
    assert found == ["model:m1 entry 3: is gone, though checkpoint 1 holds it."]


def test_verify_finds_a_forged_checkpoint(runtime: Runtime) -> None:
    found = problems(runtime, """UPDATE audit_checkpoint SET heads = '{}'""")
    assert found == ["Checkpoint 1: its signature is not this centre's."]


def test_verify_finds_a_removed_checkpoint(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        service.record(session, subject="model:m1", actor="system", action="test.did", data={})
        assert service.checkpoint(session, runtime.vault)
    assert problems(runtime, "DELETE FROM audit_checkpoint WHERE id = 1") == [
        "Checkpoint 2: the checkpoint before it is missing or was changed."
    ]


def test_checkpoint_holds_only_what_moved(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        assert not service.checkpoint(session, runtime.vault)
        service.record(session, subject="model:m1", actor="system", action="test.did", data={})
        assert service.checkpoint(session, runtime.vault)
    assert problems(runtime) == []


def test_search_by_text_and_role(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        service.record(session, subject="hospital:a", actor="system", action="hospital.kit_made", data={"kit": "k7"})
        service.record(session, subject="hospital:b", actor="system", action="hospital.kit_made", data={"kit": "k8"})
        assert [view.subject for view in service.search(session, COMMAND_LINE, text="k7")] == ["hospital:a"]
        assert len(service.search(session, COMMAND_LINE, limit=2)) == 2
        own = service.search(session, principal(Role.HOSPITAL_IT, "a"))
        assert [view.subject for view in own] == ["hospital:a"]
        with pytest.raises(ForbiddenError):
            service.search(session, principal(Role.HEMATOLOGIST))
