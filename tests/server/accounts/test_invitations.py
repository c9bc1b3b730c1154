"""Tests of invitations: one link, one account."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import text

from server.accounts import invitations, people, service
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE
from server.audit import service as audit
from server.models import Hospital
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, ForbiddenError, HematovisionError, NotFoundError, UsageError
from tests.server.centres import PASSWORD, add_user, make_runtime, principal


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    with made.database.session() as session:
        session.add(Hospital(id="a", name="Hospital A"))
    yield made
    made.database.dispose()


def test_link_makes_one_account_as_it_was_decided(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        token, made = invitations.invite(
            session, actor=COMMAND_LINE, display_name=" I. Tee ", role=Role.HOSPITAL_IT, hospital_id="a",
            email="i.tee@example.org",
        )  # fmt: skip
        assert token not in str(session.connection().execute(text("SELECT * FROM invitation")).all())
        assert [one.id for one in invitations.waiting(session, principal(Role.COORDINATOR))] == [made.id]
        user = invitations.accept(session, token, username="itee", password=PASSWORD)
        assert (user.display_name, user.role, user.hospital_id, user.email) == (
            "I. Tee", Role.HOSPITAL_IT, "a", "i.tee@example.org",
        )  # fmt: skip
        assert service.authenticate(session, "itee", PASSWORD).id == user.id
        assert invitations.waiting(session, principal(Role.ADMIN)) == []
        for act in (invitations.look, lambda s, t: invitations.accept(s, t, username="again", password=PASSWORD)):
            with pytest.raises(NotFoundError):
                act(session, token)
        told = [entry.action for entry in audit.search(session, COMMAND_LINE, f"invitation:{made.id}")]
        assert told == ["invitation.taken_up", "invitation.made"]


def test_wrong_choice_of_name_or_password_leaves_the_link_good(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        add_user(session, "ada")
        token, _ = invitations.invite(session, actor=COMMAND_LINE, display_name="B", role=Role.AUDITOR)
    choices: list[tuple[str, str, type[HematovisionError]]] = [
        ("ada", PASSWORD, ConflictError), ("B B", PASSWORD, UsageError), ("bea", "short", UsageError),
    ]  # fmt: skip
    for username, password, error in choices:
        with pytest.raises(error), runtime.database.session() as session:
            invitations.accept(session, token, username=username, password=password)
    with runtime.database.session() as session:
        assert invitations.accept(session, token, username="bea", password=PASSWORD).username == "bea"


def test_link_ends_after_seven_days_or_when_taken_back(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        late, _ = invitations.invite(session, actor=COMMAND_LINE, display_name="L", role=Role.AUDITOR)
        back, made = invitations.invite(session, actor=COMMAND_LINE, display_name="B", role=Role.AUDITOR)
        invitations.revoke(session, principal(Role.COORDINATOR), made.id)
        with pytest.raises(NotFoundError, match="Ask for a new one"):
            invitations.look(session, back)
        assert invitations.look(session, late).display_name == "L"
        with time_machine.travel(utc_now() + invitations.LIFE), pytest.raises(NotFoundError):
            invitations.look(session, late)
        with pytest.raises(NotFoundError):
            invitations.look(session, "x")


def test_used_invitation_cannot_be_taken_back(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        token, made = invitations.invite(session, actor=COMMAND_LINE, display_name="B", role=Role.AUDITOR)
        invitations.accept(session, token, username="bea", password=PASSWORD)
        with pytest.raises(ConflictError):
            invitations.revoke(session, COMMAND_LINE, made.id)


def test_links_to_a_role_that_whoever_invited_manages_no_more_are_void(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        invited_by = add_user(session, "boss", Role.ADMIN)
        boss = principal(Role.ADMIN).model_copy(update={"user_id": invited_by})
        token, _ = invitations.invite(session, actor=boss, display_name="N. Ew", role=Role.ADMIN)
        add_user(session, "other", Role.ADMIN)
        people.change_person(
            session, actor=COMMAND_LINE, user_id=invited_by, display_name="B. Oss", role=Role.AUDITOR, hospital_id=None
        )
        with pytest.raises(NotFoundError):
            invitations.accept(session, token, username="new", password=PASSWORD)


def test_links_of_whoever_was_shut_out_are_void(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        coordinator = add_user(session, "cora", Role.COORDINATOR)
        actor = principal(Role.COORDINATOR).model_copy(update={"user_id": coordinator})
        token, _ = invitations.invite(session, actor=actor, display_name="B", role=Role.AUDITOR)
        people.set_active(session, actor=COMMAND_LINE, user_id=coordinator, active=False)
        with pytest.raises(NotFoundError):
            invitations.accept(session, token, username="bea", password=PASSWORD)


def test_rights_over_invitations(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        for role in (Role.HEMATOLOGIST, Role.AUDITOR, Role.HOSPITAL_IT):
            with pytest.raises(ForbiddenError):
                invitations.invite(session, actor=principal(role, "a"), display_name="B", role=Role.AUDITOR)
            with pytest.raises(ForbiddenError):
                invitations.waiting(session, principal(role, "a"))
        with pytest.raises(ForbiddenError):
            invitations.invite(session, actor=principal(Role.COORDINATOR), display_name="B", role=Role.ADMIN)
        _, made = invitations.invite(session, actor=COMMAND_LINE, display_name="B", role=Role.ADMIN)
        assert invitations.waiting(session, principal(Role.COORDINATOR)) == []
        with pytest.raises(ForbiddenError):
            invitations.revoke(session, principal(Role.COORDINATOR), made.id)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"display_name": " "}, UsageError),
        ({"email": "nowhere"}, UsageError),
        ({"hospital_id": "a"}, UsageError),
        ({"role": Role.HOSPITAL_IT}, UsageError),
        ({"role": Role.HOSPITAL_IT, "hospital_id": "nowhere"}, NotFoundError),
    ],
)
def test_invite_refuses(runtime: Runtime, change: dict[str, object], error: type[HematovisionError]) -> None:
    wanted = {"display_name": "B", "role": Role.AUDITOR} | change
    with runtime.database.session() as session, pytest.raises(error):
        invitations.invite(session, actor=COMMAND_LINE, **wanted)  # type: ignore[arg-type] # deliberately any
