"""Tests of accounts, sign-in and sessions."""

from datetime import timedelta

import pytest
import time_machine
from pwdlib.hashers.argon2 import Argon2Hasher

from server.accounts import people, service
from server.accounts.passwords import hash_password
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE
from server.audit import service as audit
from server.models import User
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import (
    ConflictError,
    HematovisionError,
    NotFoundError,
    UnauthenticatedError,
    UsageError,
)
from tests.server.centres import PASSWORD, add_user


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
        people.set_active(session, actor=COMMAND_LINE, user_id=user_id, active=False)
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
