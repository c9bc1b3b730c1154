"""Tests of sessions as people see them, of changing the password, and of ending sessions."""

from datetime import timedelta

import pytest
import time_machine

from server.accounts import service, sessions
from server.accounts.roles import Role
from server.accounts.service import PasswordRefusedError
from server.audit import service as audit
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import ForbiddenError, NotFoundError, UsageError
from tests.server.centres import PASSWORD, add_user, principal

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
SAFARI = f"Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) {WEBKIT} Version/18.0 Mobile/15E148 Safari/604.1"
EDGE = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"
CHROME = f"Mozilla/5.0 (Linux; Android 15) {WEBKIT} Chrome/140.0.0.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (SAFARI, "Safari on iPad"),
        (EDGE, "Edge on Windows"),
        (CHROME, "Chrome on Android"),
        ("curl/8.5", "Unknown client"),
        ("", "Unknown client"),
    ],
)  # fmt: skip
def test_client_is_named_by_what_it_says(agent: str, name: str) -> None:
    assert sessions.client_name(agent) == name


def test_own_sessions_are_listed_and_ended(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        ada = add_user(session, "ada")
        _, here = service.open_session(session, ada, user_agent=FIREFOX)
        token, there = service.open_session(session, ada, user_agent=SAFARI)
        _, other = service.open_session(session, add_user(session, "bea"))
        assert {(one.client, one.current) for one in sessions.own(session, here)} == {
            ("Firefox on Linux", True), ("Safari on iPad", False),
        }  # fmt: skip
        with pytest.raises(NotFoundError):
            sessions.end_own(session, here, other.session_id)
        sessions.end_own(session, here, there.session_id)
        assert service.principal_for(session, token) is None
        assert [one.client for one in sessions.own(session, here)] == ["Firefox on Linux"]
        assert [one.current for one in sessions.own(session, other)] == [True]


def test_ending_all_others_leaves_this_one(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        ada = add_user(session, "ada")
        token, here = service.open_session(session, ada)
        others = [service.open_session(session, ada)[0] for _ in range(3)]
        assert sessions.end_others(session, here) == 3
        assert service.principal_for(session, token) is not None
        assert [service.principal_for(session, other) for other in others] == [None] * 3
        assert sessions.end_others(session, here) == 0


def test_idle_and_old_sessions_are_not_listed(runtime: Runtime) -> None:
    begin = utc_now()
    with runtime.database.session() as session:
        _, here = service.open_session(session, add_user(session, "ada"))
        with time_machine.travel(begin + service.IDLE + timedelta(seconds=5)):
            assert sessions.own(session, here) == []


def test_who_manages_an_account_ends_its_sessions(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        ada = add_user(session, "ada")
        token, _ = service.open_session(session, ada)
        for role in (Role.HEMATOLOGIST, Role.AUDITOR):
            with pytest.raises(ForbiddenError):
                sessions.end_of(session, principal(role), ada, None)
        admin = add_user(session, "ann", Role.ADMIN)
        with pytest.raises(ForbiddenError):
            sessions.of(session, principal(Role.COORDINATOR), admin)
        sessions.end_of(session, principal(Role.ADMIN), ada, None)
        assert service.principal_for(session, token) is None
        (entry, *_) = audit.search(session, principal(Role.ADMIN), f"user:{ada}")
        assert (entry.action, entry.actor) == ("account.sessions_ended", "user:u1")


def test_new_password_ends_every_other_session(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        ada = add_user(session, "ada")
        token, here = service.open_session(session, ada)
        other, _ = service.open_session(session, ada)
        service.change_password(session, here, old=PASSWORD, new="a new good password")
        assert service.principal_for(session, token) is not None
        assert service.principal_for(session, other) is None
        assert service.authenticate(session, "ada", "a new good password").id == ada
    with pytest.raises(PasswordRefusedError, match="The password is wrong"), runtime.database.session() as session:
        service.change_password(session, here, old=PASSWORD, new="another good password")
    with runtime.database.session() as session:
        for new in ("short", "a new good password"):
            with pytest.raises(UsageError):
                service.change_password(session, here, old="a new good password", new=new)
