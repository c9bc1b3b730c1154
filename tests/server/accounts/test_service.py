"""Tests of accounts, sign-in and sessions."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import select

from server.accounts import service
from server.accounts.passwords import hash_password
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE, Principal, UserView
from server.audit import service as audit
from server.models import AuditEntry, Hospital, User
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import (
    ConflictError,
    ForbiddenError,
    HematovisionError,
    NotFoundError,
    UnauthenticatedError,
    UsageError,
)
from tests.server.centres import PASSWORD, add_user, make_runtime, principal


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.database.dispose()


def fail(runtime: Runtime, times: int) -> str:
    message = ""
    for _ in range(times):
        with pytest.raises(UnauthenticatedError) as caught, runtime.database.session() as session:
            service.authenticate(session, "ada", "a wrong password")
        message = caught.value.message
    return message


def test_authenticate_right_password(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    with runtime.database.session() as session:
        assert service.authenticate(session, " Ada ", PASSWORD).id == user_id


def test_a_sign_in_makes_a_hash_of_the_earlier_cost_anew(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
        earlier = Argon2Hasher(time_cost=3, memory_cost=65536, parallelism=4).hash(PASSWORD)
        session.get_one(User, user_id).password_hash = earlier
    with pytest.raises(UnauthenticatedError), runtime.database.session() as session:
        service.authenticate(session, "ada", "a wrong password")
    with runtime.database.session() as session:
        assert session.get_one(User, user_id).password_hash == earlier
        service.authenticate(session, "ada", PASSWORD)
    with runtime.database.session() as session:
        assert session.get_one(User, user_id).password_hash.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
        service.authenticate(session, "ada", PASSWORD)


def test_authenticate_says_the_same_for_unknown_wrong_and_shut(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
        add_user(session, "bea")
        service.set_active(session, actor=COMMAND_LINE, user_id=user_id, active=False)
    messages = set()
    for name, password in (("nobody", PASSWORD), ("bea", "a wrong password"), ("ada", PASSWORD)):
        with pytest.raises(UnauthenticatedError) as caught, runtime.database.session() as session:
            service.authenticate(session, name, password)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_account_locks_after_five_failures_and_opens_again(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    assert "wrong" in fail(runtime, 5)
    with pytest.raises(UnauthenticatedError, match="wait"), runtime.database.session() as session:
        service.authenticate(session, "ada", PASSWORD)
    with runtime.database.session() as session:
        actions = [entry.action for entry in audit.search(session, COMMAND_LINE, f"user:{user_id}")]
    assert actions[0] == "account.locked"
    assert actions.count("account.sign_in_failed") == 5
    with time_machine.travel(utc_now() + timedelta(seconds=31)), runtime.database.session() as session:
        assert service.authenticate(session, "ada", PASSWORD).id == user_id
        assert session.get_one(User, user_id).failed_logins == 0


def test_lock_grows_with_further_failures(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    fail(runtime, 5)
    with time_machine.travel(utc_now() + timedelta(seconds=31)):
        fail(runtime, 1)
        with runtime.database.session() as session:
            until = session.get_one(User, user_id).locked_until
            assert until is not None
            assert until - utc_now() > timedelta(seconds=55)


def test_check_password_counts_towards_the_lock(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    for _ in range(5):
        with pytest.raises(UnauthenticatedError), runtime.database.session() as session:
            service.check_password(session, user_id, "a wrong password")
    with pytest.raises(UnauthenticatedError, match="wait"), runtime.database.session() as session:
        service.check_password(session, user_id, PASSWORD)


def test_session_opens_and_closes(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        token, opened = service.open_session(session, add_user(session, "ada"))
    with runtime.database.session(read_only=True) as session:
        assert service.principal_for(session, token) == opened
        assert service.principal_for(session, token + "x") is None
        assert service.principal_for(session, "") is None
    with runtime.database.session() as session:
        service.close_session(session, token)
    with runtime.database.session() as session:
        assert service.principal_for(session, token) is None


def test_session_ends_when_idle_but_not_while_used(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        token, _ = service.open_session(session, add_user(session, "ada"))
    begin = utc_now()
    for minutes, alive in ((20, True), (40, True), (75, False)):
        with time_machine.travel(begin + timedelta(minutes=minutes)), runtime.database.session() as session:
            assert (service.principal_for(session, token) is not None) is alive


def _change(runtime: Runtime, actor: Principal, user_id: str, **changes: Any) -> UserView:
    with runtime.database.session() as session:
        user = session.get_one(User, user_id)
        kept = {"display_name": user.display_name, "role": user.role, "hospital_id": user.hospital_id}
        return service.change_person(session, actor=actor, user_id=user_id, **{**kept, **changes})


def test_another_role_or_hospital_ends_every_session_and_another_name_none(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        session.add_all(Hospital(id=one, name=one) for one in "ab")
        session.flush()
        user_id = add_user(session, "ada")
    changes: list[tuple[dict[str, Any], bool]] = [
        ({"display_name": " Dr. Ada Married "}, True),
        ({"role": Role.HOSPITAL_IT, "hospital_id": "a"}, False),
        ({"hospital_id": "b"}, False),
        ({}, True),
    ]
    for change, alive in changes:
        with runtime.database.session() as session:
            token, _ = service.open_session(session, user_id)
        _change(runtime, COMMAND_LINE, user_id, **change)
        with runtime.database.session(read_only=True) as session:
            assert (service.principal_for(session, token) is not None) is alive, change
    with runtime.database.session(read_only=True) as session:
        user = session.get_one(User, user_id)
        told = [entry.data for entry in session.exec(select(AuditEntry)) if entry.action == "account.changed"]
    assert (user.display_name, user.role, user.hospital_id) == ("Dr. Ada Married", Role.HOSPITAL_IT, "b")
    assert told == [
        {"name": {"from": "Dr. ada", "to": "Dr. Ada Married"}, "sessions_ended": 0},
        {
            "role": {"from": "hematologist", "to": "hospital_it"},
            "hospital_id": {"from": None, "to": "a"},
            "sessions_ended": 2,
        },
        {"hospital_id": {"from": "a", "to": "b"}, "sessions_ended": 1},
    ]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"role": Role.HOSPITAL_IT}, UsageError),
        ({"hospital_id": "a"}, UsageError),
        ({"role": Role.HOSPITAL_IT, "hospital_id": "none"}, NotFoundError),
        ({"display_name": " "}, UsageError),
    ],
)
def test_place_that_cannot_be_is_given_to_nobody(
    runtime: Runtime, changes: dict[str, Any], error: type[HematovisionError]
) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    with pytest.raises(error):
        _change(runtime, COMMAND_LINE, user_id, **changes)
    with runtime.database.session(read_only=True) as session:
        assert session.get_one(User, user_id).role is Role.HEMATOLOGIST


def test_administrators_alone_change_people_and_one_always_stays(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        first, ada = add_user(session, "first", Role.ADMIN), add_user(session, "ada")
    own = principal(Role.ADMIN).model_copy(update={"user_id": first})
    for role in (Role.COORDINATOR, Role.HEMATOLOGIST, Role.AUDITOR):
        with pytest.raises(ForbiddenError):
            _change(runtime, principal(role), ada, display_name="Dr. X")
    with pytest.raises(ConflictError, match="own role"):
        _change(runtime, own, first, role=Role.AUDITOR)
    assert _change(runtime, own, first, display_name="A. First").display_name == "A. First"
    with pytest.raises(ConflictError, match="last administrator"):
        _change(runtime, COMMAND_LINE, first, role=Role.AUDITOR)
    _change(runtime, own, ada, role=Role.ADMIN)
    assert _change(runtime, COMMAND_LINE, first, role=Role.AUDITOR).role is Role.AUDITOR
    with pytest.raises(ConflictError, match="last administrator"):
        _change(runtime, own, ada, role=Role.HEMATOLOGIST)


def test_session_ends_when_the_person_is_shut_out(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
        token, _ = service.open_session(session, user_id)
        service.set_active(session, actor=COMMAND_LINE, user_id=user_id, active=False)
        assert service.principal_for(session, token) is None
        with pytest.raises(UnauthenticatedError):
            service.open_session(session, user_id)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"username": "a b"}, UsageError),
        ({"password": "short"}, UsageError),
        ({"display_name": " "}, UsageError),
        ({"hospital_id": "a"}, UsageError),
        ({"role": Role.HOSPITAL_IT}, UsageError),
        ({"role": Role.HOSPITAL_IT, "hospital_id": "nowhere"}, NotFoundError),
        ({"username": "ada"}, ConflictError),
    ],
)
def test_create_user_refuses(runtime: Runtime, change: dict[str, object], error: type[HematovisionError]) -> None:
    wanted = {"username": "bea", "display_name": "Bea", "role": Role.HEMATOLOGIST, "password": PASSWORD} | change
    with runtime.database.session() as session:
        add_user(session, "ada")
        with pytest.raises(error):
            service.create_user(session, actor=COMMAND_LINE, **wanted)  # type: ignore[arg-type] # deliberately any


def test_rights_over_people(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        for role in (Role.HEMATOLOGIST, Role.AUDITOR, Role.HOSPITAL_IT):
            with pytest.raises(ForbiddenError):
                service.create_user(
                    session, actor=principal(role), username="x1", display_name="X", role=role, password=PASSWORD
                )
        with pytest.raises(ForbiddenError):
            service.create_user(
                session,
                actor=principal(Role.COORDINATOR),
                username="x1",
                display_name="X",
                role=Role.ADMIN,
                password=PASSWORD,
            )
        with pytest.raises(ForbiddenError):
            service.list_users(session, principal(Role.HEMATOLOGIST))
        assert [user.username for user in service.list_users(session, principal(Role.HOSPITAL_IT, "b"))] == []


def test_password_is_compared_before_the_transaction_begins(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    with runtime.database.session() as session:
        service.compare_ahead(session, runtime, user_id, PASSWORD)
        assert not session.in_transaction()
        service.check_password(session, user_id, PASSWORD)
    for given, asked in ((PASSWORD, "a wrong password"), ("a wrong password", "a wrong password")):
        with runtime.database.session() as session:
            service.compare_name_ahead(session, runtime, "ada", given)
            with pytest.raises(UnauthenticatedError):
                service.check_password(session, user_id, asked)
    with runtime.database.session() as session:
        assert session.get_one(User, user_id).failed_logins == 2


def test_comparison_ahead_is_worth_nothing_once_the_password_is_another(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    with runtime.database.session() as session:
        service.compare_ahead(session, runtime, user_id, PASSWORD)
        with runtime.database.session() as other:
            other.get_one(User, user_id).password_hash = hash_password("another good password")
        with pytest.raises(UnauthenticatedError):
            service.check_password(session, user_id, PASSWORD)


def test_locked_account_is_refused_whatever_was_compared_ahead(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        user_id = add_user(session, "ada")
    with runtime.database.session() as session:
        service.compare_ahead(session, runtime, user_id, PASSWORD)
        fail(runtime, 5)
        with pytest.raises(UnauthenticatedError, match="wait"):
            service.check_password(session, user_id, PASSWORD)
