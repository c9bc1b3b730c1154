"""Who has an account: rights over it, letting in, shutting out, and another name, role or hospital."""

from typing import Any

import pytest
from sqlmodel import select

from server.accounts import people, service
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE, Principal, UserView
from server.models import AuditEntry, Hospital, User
from server.runtime import Runtime
from shared.contracts.errors import (
    ConflictError,
    ForbiddenError,
    HematovisionError,
    NotFoundError,
    UnauthenticatedError,
    UsageError,
)
from tests.server.centres import PASSWORD, add_user, principal


def _change(runtime: Runtime, actor: Principal, user_id: str, **changes: Any) -> UserView:
    with runtime.database.session() as session:
        user = session.get_one(User, user_id)
        kept = {"display_name": user.display_name, "role": user.role, "hospital_id": user.hospital_id}
        return people.change_person(session, actor=actor, user_id=user_id, **{**kept, **changes})


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
        people.set_active(session, actor=COMMAND_LINE, user_id=user_id, active=False)
        assert service.principal_for(session, token) is None
        with pytest.raises(UnauthenticatedError):
            service.open_session(session, user_id)


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
            people.list_users(session, principal(Role.HEMATOLOGIST))
        assert [user.username for user in people.list_users(session, principal(Role.HOSPITAL_IT, "b"))] == []


def test_last_administrator_is_not_shut_out(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        ada = service.create_user(
            session, actor=COMMAND_LINE, username="ada", display_name="Ada", role=Role.ADMIN, password="a long password"
        )
        with pytest.raises(ConflictError, match="last administrator"):
            people.set_active(session, actor=COMMAND_LINE, user_id=ada.id, active=False)
        service.create_user(
            session, actor=COMMAND_LINE, username="bo", display_name="Bo", role=Role.ADMIN, password="a long password"
        )
        people.set_active(session, actor=COMMAND_LINE, user_id=ada.id, active=False)
