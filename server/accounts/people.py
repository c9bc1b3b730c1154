"""Who has an account: seen by whoever may, let in, shut out, and given another name, role or hospital."""

from typing import Final

from sqlmodel import Session

from server.accounts import repository
from server.accounts import service as accounts
from server.accounts.roles import Role
from server.accounts.schemas import Principal, UserView
from server.models.base import utc_now
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError

_LAST: Final = "This is the last administrator who may sign in; make another one first."


def list_users(session: Session, principal: Principal) -> list[UserView]:
    """Return the accounts; hospital IT sees its own hospital's."""
    return _listed(session, _scope(principal))


def person(session: Session, principal: Principal, user_id: str) -> UserView:
    """Return one account."""
    found = _listed(session, _scope(principal), user_id)
    if not found:
        raise NotFoundError("There is no such account.")
    return found[0]


def set_active(session: Session, *, actor: Principal, user_id: str, active: bool) -> UserView:
    """Let a person in again, or shut them out at once.

    Raises:
        ConflictError: it is oneself, or nobody who may sign in would be left to administer.
        NotFoundError, ForbiddenError: there is no such account, or not for this actor.
    """
    admins = _administrators(session)
    user = accounts.managed(session, actor, user_id)
    if user.id == actor.user_id and not active:
        raise ConflictError("Nobody shuts out themselves; ask another administrator.")
    if not active and admins == {user.id}:
        raise ConflictError(_LAST)
    user.active = active
    if not active:
        repository.revoke(session, now=utc_now(), user_id=user.id)
    accounts.record(session, user, actor.actor, "activated" if active else "deactivated")
    return accounts.view_of(user)


def change_person(
    session: Session, *, actor: Principal, user_id: str, display_name: str, role: Role, hospital_id: str | None
) -> UserView:
    """Give a person another name, role or hospital. Another role or hospital ends every session of theirs.

    Reports keep the name and role that they were signed with.

    Raises:
        ForbiddenError: the actor is no administrator.
        ConflictError: it is one's own role, or nobody who may sign in would be left to administer.
        UsageError, NotFoundError: name, role and hospital do not go together, or there is no such account or hospital.
    """
    if actor.role is not Role.ADMIN:
        raise ForbiddenError("Only administrators change a person's name, role or hospital.")
    admins = _administrators(session)
    user, name = accounts.managed(session, actor, user_id), display_name.strip()
    accounts.check_place(session, display_name=name, role=role, hospital_id=hospital_id)
    if user.id == actor.user_id and role is not user.role:
        raise ConflictError("Nobody changes their own role; ask another administrator.")
    if role is not Role.ADMIN and admins == {user.id}:
        raise ConflictError(_LAST)
    before = {"name": user.display_name, "role": user.role.value, "hospital_id": user.hospital_id}
    user.display_name, user.role, user.hospital_id = name, role, hospital_id
    after = {"name": name, "role": role.value, "hospital_id": hospital_id}
    changed = {key: {"from": before[key], "to": value} for key, value in after.items() if value != before[key]}
    if not changed:
        return accounts.view_of(user)
    ended = repository.revoke(session, now=utc_now(), user_id=user.id) if changed.keys() - {"name"} else 0
    accounts.record(session, user, actor.actor, "changed", **changed, sessions_ended=ended)
    return accounts.view_of(user)


def _scope(principal: Principal) -> str | None:
    if principal.role is Role.HOSPITAL_IT and principal.hospital_id:
        return principal.hospital_id
    if principal.role not in {Role.ADMIN, Role.COORDINATOR, Role.AUDITOR}:
        raise ForbiddenError("Your role does not see accounts; ask a coordinator.")
    return None


def _listed(session: Session, hospital_id: str | None, user_id: str | None = None) -> list[UserView]:
    now = utc_now()
    found = repository.users(session, hospital_id=hospital_id, now=now, idle_since=now - accounts.IDLE, user_id=user_id)
    return [accounts.view_of(line.user, line.sessions) for line in found]


def _administrators(session: Session) -> set[str]:
    """Return the ids of those who may sign in, locked: of two who shut each other out, the second is refused."""
    return {user.id for user in repository.active_of_role(session, Role.ADMIN, lock=True)}
