"""Users, passwords, sessions."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from server.accounts import passwords, repository
from server.accounts.roles import Role
from server.accounts.schemas import Principal, UserView
from server.audit import service as audit
from server.db.session import KeepsChangesError
from server.models import User, UserSession
from server.models.base import utc_now
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError, UsageError

FAILURES_BEFORE_LOCK = 5
_FIRST_LOCK = timedelta(seconds=30)
_LONGEST_LOCK = timedelta(minutes=15)
IDLE = timedelta(minutes=30)
SESSION_LIFE = timedelta(hours=12)
_TOUCH_EVERY = timedelta(minutes=1)
_USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,49}")
_REFUSED = "User name or password is wrong; try again."


class SignInRefusedError(UnauthenticatedError, KeepsChangesError):
    """Wrong name or password, or a locked account; the failure stays counted."""


def create_user(
    session: Session,
    *,
    actor: Principal,
    username: str,
    display_name: str,
    role: Role,
    password: str,
    hospital_id: str | None = None,
) -> UserView:
    """Add a person; coordinators may add everybody but administrators."""
    _require_people_rights(actor, role)
    name = username.strip().lower()
    if not _USERNAME.fullmatch(name):
        raise UsageError("A user name has 2 to 50 small letters, digits, dots, hyphens or underscores.")
    if not display_name.strip():
        raise UsageError("Give the person's name as it shall stand on reports.")
    if (role is Role.HOSPITAL_IT) != (hospital_id is not None):
        raise UsageError("Hospital IT belongs to a hospital, and nobody else does: give or leave out the hospital.")
    if hospital_id is not None and not repository.hospital_exists(session, hospital_id):
        raise NotFoundError(f"There is no hospital {hospital_id}; enrol it first.")
    if repository.by_username(session, name):
        raise ConflictError(f"The user name {name} is taken; choose another.")
    user = User(
        username=name,
        display_name=display_name.strip(),
        role=role,
        hospital_id=hospital_id,
        password_hash=passwords.hash_password(password),
    )
    repository.add(session, user)
    _record(session, user, actor.actor, "created", role=role.value, hospital_id=hospital_id)
    return _view(user)


def set_active(session: Session, *, actor: Principal, user_id: str, active: bool) -> UserView:
    """Let a person in again, or shut them out at once."""
    user = repository.by_id(session, user_id, lock=True)
    if user is None:
        raise NotFoundError("There is no such account.")
    _require_people_rights(actor, user.role)
    if user.id == actor.user_id and not active:
        raise ConflictError("Nobody shuts out themselves; ask another administrator.")
    user.active = active
    if not active:
        repository.revoke(session, now=utc_now(), user_id=user.id)
    _record(session, user, actor.actor, "activated" if active else "deactivated")
    return _view(user)


def list_users(session: Session, principal: Principal) -> list[UserView]:
    """Return the accounts; hospital IT sees its own hospital's."""
    if principal.role is Role.HOSPITAL_IT and principal.hospital_id:
        return [_view(user) for user in repository.users(session, hospital_id=principal.hospital_id)]
    if principal.role not in {Role.ADMIN, Role.COORDINATOR, Role.AUDITOR}:
        raise ForbiddenError("Your role does not see accounts; ask a coordinator.")
    return [_view(user) for user in repository.users(session, hospital_id=None)]


def authenticate(session: Session, username: str, password: str) -> UserView:
    """Return whose name and password these are.

    Raises:
        SignInRefusedError: they are nobody's, or the account is locked or shut.
    """
    user = repository.by_username(session, username.strip().lower(), lock=True)
    return _view(_checked(session, user, password))


def check_password(session: Session, user_id: str, password: str) -> None:
    """Return if this is the account's password: the second component of a signature.

    Raises:
        SignInRefusedError: it is not; failures count towards the lock.
    """
    _checked(session, repository.by_id(session, user_id, lock=True), password)


def open_session(session: Session, user_id: str) -> tuple[str, Principal]:
    """Sign an authenticated person in; return the cookie's token and the principal."""
    user = repository.by_id(session, user_id)
    if user is None or not user.active:
        raise SignInRefusedError(_REFUSED)
    token = secrets.token_urlsafe(32)
    row = UserSession(
        id=_session_id(token),
        user_id=user.id,
        csrf_token=secrets.token_urlsafe(24),
        expires_at=utc_now() + SESSION_LIFE,
    )
    repository.add(session, row)
    _record(session, user, f"user:{user.id}", "signed_in")
    return token, _principal(row, user)


def principal_for(session: Session, token: str) -> Principal | None:
    """Return who is signed in by this token, or None: unknown, ended, idle too long, or shut out."""
    found = repository.session_and_user(session, _session_id(token)) if token else None
    if found is None:
        return None
    row, user = found
    now = utc_now()
    if row.revoked_at or row.expires_at <= now or row.last_seen_at + IDLE <= now or not user.active:
        return None
    if row.last_seen_at + _TOUCH_EVERY <= now:
        _touch(session, row.id, now)
    return _principal(row, user)


def close_session(session: Session, token: str) -> None:
    """Sign out."""
    found = repository.session_and_user(session, _session_id(token))
    if found is None or found[0].revoked_at:
        return
    repository.revoke(session, now=utc_now(), session_id=found[0].id)
    _record(session, found[1], f"user:{found[1].id}", "signed_out")


def _checked(session: Session, user: User | None, password: str) -> User:
    now = utc_now()
    if user is not None and user.locked_until and user.locked_until > now:
        seconds = int((user.locked_until - now).total_seconds()) + 1
        raise SignInRefusedError(f"Too many failed attempts; wait {seconds} seconds and try again.")
    right = passwords.matches(password, user.password_hash if user else None)
    if user is None or not user.active:
        raise SignInRefusedError(_REFUSED)
    if not right:
        _count_failure(session, user, now)
        raise SignInRefusedError(_REFUSED)
    user.failed_logins, user.locked_until = 0, None
    return user


def _count_failure(session: Session, user: User, now: datetime) -> None:
    user.failed_logins += 1
    _record(session, user, f"user:{user.id}", "sign_in_failed", failures=user.failed_logins)
    beyond = user.failed_logins - FAILURES_BEFORE_LOCK
    if beyond >= 0:
        user.locked_until = now + min(_FIRST_LOCK * 2 ** min(beyond, 10), _LONGEST_LOCK)
        _record(session, user, "system", "locked", until=user.locked_until.isoformat())


def _touch(session: Session, session_id: str, now: datetime) -> None:
    # Best effort: in a reading transaction of SQLite another writer may have been faster.
    try:
        with session.begin_nested():
            repository.touch(session, session_id, now)
    except OperationalError:
        return


def _require_people_rights(actor: Principal, role: Role) -> None:
    if actor.role is Role.ADMIN or (actor.role is Role.COORDINATOR and role is not Role.ADMIN):
        return
    raise ForbiddenError("Your role does not manage this kind of account; ask an administrator.")


def _record(session: Session, user: User, actor: str, action: str, **data: object) -> None:
    audit.record(session, subject=f"user:{user.id}", actor=actor, action=f"account.{action}", data=data)


def _session_id(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _principal(row: UserSession, user: User) -> Principal:
    return Principal(
        user_id=user.id,
        username=user.username,
        display_name=user.display_name,
        role=user.role,
        hospital_id=user.hospital_id,
        csrf_token=row.csrf_token,
        session_id=row.id,
    )


def _view(user: User) -> UserView:
    return UserView.model_validate(user, from_attributes=True)
