"""Accounts as such: made, signed in to by password, and the sessions that follow."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
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
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError, UsageError

FAILURES_BEFORE_LOCK = 5
_FIRST_LOCK = timedelta(seconds=30)
_LONGEST_LOCK = timedelta(minutes=15)
IDLE = timedelta(minutes=30)
SESSION_LIFE = timedelta(hours=12)
_TOUCH_EVERY = timedelta(minutes=1)
_LONGEST_AGENT = 300
_USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,49}")
_EMAIL = re.compile(r"[^\s@,;<>\"]{1,100}@[A-Za-z0-9.-]{1,150}")
_REFUSED = "User name or password is wrong; try again."


class SignInRefusedError(UnauthenticatedError, KeepsChangesError):
    """Wrong name, password or code, or a locked account; the failure stays counted."""


class PasswordRefusedError(ForbiddenError, KeepsChangesError):
    """Somebody who is signed in gave a wrong password; the failure stays counted."""


@dataclass(frozen=True)
class _Compared:
    """A comparison that was made ahead: good for this password and this hash only (None: nobody's)."""

    password: str = field(repr=False)
    password_hash: str | None = field(repr=False)
    right: bool


def create_user(
    session: Session,
    *,
    actor: Principal,
    username: str,
    display_name: str,
    role: Role,
    password: str,
    hospital_id: str | None = None,
    email: str | None = None,
) -> UserView:
    """Add a person; coordinators may add everybody but administrators."""
    require_people_rights(actor, role)
    check_place(session, display_name=display_name, role=role, hospital_id=hospital_id)
    name = _tidy(username)
    if not _USERNAME.fullmatch(name):
        raise UsageError("A user name has 2 to 50 small letters, digits, dots, hyphens or underscores.")
    if repository.by_username(session, name):
        raise ConflictError(f"The user name {name} is taken; choose another.")
    user = User(
        username=name,
        display_name=display_name.strip(),
        role=role,
        hospital_id=hospital_id,
        password_hash=passwords.hash_password(password),
        email=email,
    )
    repository.add(session, user)
    record(session, user, actor.actor, "created", role=role.value, hospital_id=hospital_id)
    return view_of(user)


def check_place(session: Session, *, display_name: str, role: Role, hospital_id: str | None) -> None:
    """Return if an account can have this name, role and hospital.

    Raises:
        UsageError, NotFoundError: it cannot.
    """
    if not display_name.strip():
        raise UsageError("Give the person's name as it shall stand on reports.")
    if (role is Role.HOSPITAL_IT) != (hospital_id is not None):
        raise UsageError("Hospital IT belongs to a hospital, and nobody else does: give or leave out the hospital.")
    if hospital_id is not None and not repository.hospital_exists(session, hospital_id):
        raise NotFoundError(f"There is no hospital {hospital_id}; enrol it first.")


def managed(session: Session, actor: Principal, user_id: str) -> User:
    """Return an account, locked, that ``actor`` may change.

    Raises:
        NotFoundError, ForbiddenError: there is none, or not for this actor.
    """
    user = repository.by_id(session, user_id, lock=True)
    if user is None:
        raise NotFoundError("There is no such account.")
    require_people_rights(actor, user.role)
    return user


def compare_ahead(session: Session, runtime: Runtime, user_id: str, password: str) -> None:
    """Compare a password before ``session`` begins its transaction, which then need not wait for it.

    A comparison takes a tenth of a second by design: inside a transaction it would keep a lock as long, on SQLite the
    only one. It decides nothing: whoever checks the password does so in the transaction, and compares again where
    another hash stands by then.
    """
    with runtime.database.session(read_only=True) as reading:
        user = repository.by_id(reading, user_id)
    _compare(session, user, password)


def compare_name_ahead(session: Session, runtime: Runtime, username: str, password: str) -> None:
    """Do as `compare_ahead` for whoever has this name; for nobody it takes as long."""
    with runtime.database.session(read_only=True) as reading:
        user = repository.by_username(reading, _tidy(username))
    _compare(session, user, password)


def authenticate(session: Session, username: str, password: str) -> UserView:
    """Return whose name and password these are. Where a second factor is to come, failures stay counted until then.

    Raises:
        SignInRefusedError: they are nobody's, or the account is locked or shut.
    """
    user = repository.by_username(session, _tidy(username), lock=True)
    return view_of(_checked(session, user, password, whole=user is not None and user.totp_sealed is None))


def check_password(session: Session, user_id: str, password: str) -> None:
    """Return if this is the account's password: the second component of a signature.

    Raises:
        SignInRefusedError: it is not; failures count towards the lock.
    """
    _checked(session, repository.by_id(session, user_id, lock=True), password, whole=True)


def require_password(session: Session, principal: Principal, password: str) -> None:
    """Return if whoever is signed in knows the password: asked before anything about the account itself changes.

    Raises:
        PasswordRefusedError: they do not; failures count towards the lock.
    """
    try:
        check_password(session, principal.user_id, password)
    except SignInRefusedError as refused:
        raise PasswordRefusedError(refused.message.replace("User name or password is", "The password is")) from None


def change_password(session: Session, principal: Principal, *, old: str, new: str) -> None:
    """Set a new password; every other session of the account ends.

    Raises:
        PasswordRefusedError: the old one is wrong.
        UsageError: the new one is too short, too long, or the old one.
    """
    require_password(session, principal, old)
    if old == new:
        raise UsageError("That is the password you have; choose another.")
    user = repository.by_id(session, principal.user_id, lock=True)
    if user is None:
        raise NotFoundError("There is no such account.")
    user.password_hash = passwords.hash_password(new)
    ended = repository.revoke(session, now=utc_now(), user_id=user.id, but=principal.session_id)
    record(session, user, principal.actor, "password_changed", sessions_ended=ended)


def open_session(session: Session, user_id: str, *, user_agent: str = "") -> tuple[str, Principal]:
    """Sign an authenticated person in; return the cookie's token and the principal."""
    user = repository.by_id(session, user_id)
    if user is None or not user.active:
        raise SignInRefusedError(_REFUSED)
    token = secrets.token_urlsafe(32)
    row = UserSession(
        id=token_id(token),
        user_id=user.id,
        csrf_token=secrets.token_urlsafe(24),
        expires_at=utc_now() + SESSION_LIFE,
        user_agent=user_agent[:_LONGEST_AGENT],
    )
    repository.add(session, row)
    user.last_sign_in_at, user.failed_logins, user.locked_until = row.created_at, 0, None
    record(session, user, f"user:{user.id}", "signed_in")
    return token, _principal(row, user)


def principal_for(session: Session, token: str, *, used: bool = True) -> Principal | None:
    """Return who is signed in by this token, or None: unknown, ended, idle too long, or shut out.

    ``used`` False: asked by an open page itself, which is no use of the session.
    """
    found = repository.session_and_user(session, token_id(token)) if token else None
    if found is None:
        return None
    row, user = found
    now = utc_now()
    if row.revoked_at or row.expires_at <= now or row.last_seen_at + IDLE <= now or not user.active:
        return None
    if used and row.last_seen_at + _TOUCH_EVERY <= now:
        _touch(session, row.id, now)
    return _principal(row, user)


def close_session(session: Session, token: str) -> None:
    """Sign out."""
    found = repository.session_and_user(session, token_id(token))
    if found is None or found[0].revoked_at:
        return
    repository.revoke(session, now=utc_now(), session_id=found[0].id)
    record(session, found[1], f"user:{found[1].id}", "signed_out")


def notice_address(session: Session, user_id: str) -> str | None:
    """Return where letters to this person go; None: there is no address, no wish for letters, or no way in any more."""
    user = repository.by_id(session, user_id)
    return user.email if user is not None and user.active and user.mail_notices and user.email else None


def notices(session: Session, principal: Principal) -> tuple[str, bool]:
    """Return one's own address and whether letters are wanted."""
    user = repository.by_id(session, principal.user_id)
    return (user.email or "", user.mail_notices) if user else ("", False)


def set_notices(session: Session, principal: Principal, *, email: str, wanted: bool) -> None:
    """Keep one's own address and whether letters are wanted.

    Raises:
        UsageError: that is no address.
    """
    email = email.strip()
    if email and not _EMAIL.fullmatch(email):
        raise UsageError("That is no e-mail address; write it as name@hospital.example.")
    if wanted and not email:
        raise UsageError("Give the e-mail address that the letters shall go to.")
    user = repository.by_id(session, principal.user_id, lock=True)
    if user is not None:
        user.email, user.mail_notices = email or None, wanted
        record(session, user, principal.actor, "notices", wanted=wanted)


def require_open(user: User | None) -> User:
    """Return the account if attempts to sign in to it are looked at.

    Raises:
        SignInRefusedError: there is none, it is shut, or it is locked after failed attempts.
    """
    now = utc_now()
    if user is not None and user.locked_until and user.locked_until > now:
        seconds = int((user.locked_until - now).total_seconds()) + 1
        raise SignInRefusedError(f"Too many failed attempts; wait {seconds} seconds and try again.")
    if user is None or not user.active:
        raise SignInRefusedError(_REFUSED)
    return user


def count_failure(session: Session, user: User, *, what: str = "sign_in_failed") -> None:
    """Count a wrong password or code; from the fifth on the account is locked, each time for longer."""
    user.failed_logins += 1
    record(session, user, f"user:{user.id}", what, failures=user.failed_logins)
    beyond = user.failed_logins - FAILURES_BEFORE_LOCK
    if beyond >= 0:
        user.locked_until = utc_now() + min(_FIRST_LOCK * 2 ** min(beyond, 10), _LONGEST_LOCK)
        record(session, user, "system", "locked", until=user.locked_until.isoformat())


def _checked(session: Session, user: User | None, password: str, *, whole: bool) -> User:
    """Return the account if the password is right; ``whole``: nothing else is to come, so failures are forgotten."""
    # An unknown or shut account takes as long as any other: the answer's time tells no names.
    right = not _locked(user) and _matches(session, user, password)
    found = require_open(user)
    if not right:
        count_failure(session, found)
        raise SignInRefusedError(_REFUSED)
    found.password_hash = passwords.renewed(password, found.password_hash) or found.password_hash
    if whole:
        found.failed_logins, found.locked_until = 0, None
    return found


def _compare(session: Session, user: User | None, password: str) -> None:
    if not _locked(user):
        known = user.password_hash if user else None
        session.info[_Compared] = _Compared(password, known, passwords.matches(password, known))


def _matches(session: Session, user: User | None, password: str) -> bool:
    known = user.password_hash if user else None
    ahead = session.info.get(_Compared)
    if isinstance(ahead, _Compared) and (ahead.password, ahead.password_hash) == (password, known):
        return ahead.right
    return passwords.matches(password, known)


def _locked(user: User | None) -> bool:
    return user is not None and user.locked_until is not None and user.locked_until > utc_now()


def _tidy(username: str) -> str:
    return username.strip().lower()


def _touch(session: Session, session_id: str, now: datetime) -> None:
    # Best effort: in a reading transaction of SQLite another writer may have been faster.
    try:
        with session.begin_nested():
            repository.touch(session, session_id, now)
    except OperationalError:
        return


def manages(actor: Role, role: Role) -> bool:
    """Whether who has one role may manage accounts of another."""
    return actor is Role.ADMIN or (actor is Role.COORDINATOR and role is not Role.ADMIN)


def require_people_rights(actor: Principal, role: Role) -> None:
    """Refuse whoever may not manage accounts of this role."""
    if not manages(actor.role, role):
        raise ForbiddenError("Your role does not manage this kind of account; ask an administrator.")


def record(session: Session, user: User, actor: str, action: str, **data: object) -> None:
    """Write into the account's audit."""
    audit.record(session, subject=f"user:{user.id}", actor=actor, action=f"account.{action}", data=data)


def token_id(token: str) -> str:
    """Return under what a cookie's or link's token is kept: a copied database opens nothing."""
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


def view_of(user: User, sessions: int = 0) -> UserView:
    """Return an account as others see it; ``sessions``: how many are open."""
    locked = user.locked_until if user.locked_until and user.locked_until > utc_now() else None
    kept = user.model_dump(include=UserView.model_fields.keys() - {"locked_until"})
    return UserView(**kept, second_factor=user.totp_sealed is not None, sessions=sessions, locked_until=locked)
