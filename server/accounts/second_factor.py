"""The second factor: time-based codes of an authenticator app (RFC 6238), and recovery codes for who has lost it.

The secret is sealed by the vault, so that a copied database makes no codes. A code is taken once: its time step is
kept, and neither it nor an earlier one is taken again. The clocks may differ by one step of 30 seconds.
"""

import hashlib
import hmac
import secrets
from typing import Final

import pyotp
from sqlmodel import Session

from server.accounts import repository, service
from server.accounts.schemas import Enrolment, Principal, SecondFactorView
from server.models import User
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, NotFoundError, UsageError

ISSUER: Final = "Hematovision"
STEP_SECONDS: Final = 30
SKEW: Final = 1
"""So many steps may the clocks of app and centre differ, in either direction."""
RECOVERY_CODES: Final = 10
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_WRONG: Final = "The code is wrong or was used before. Wait for the next one, and check the phone's clock."


def required(runtime: Runtime, user: User) -> bool:
    """Whether this account's role must have one."""
    return user.role in runtime.settings.second_factor_roles


def view(session: Session, runtime: Runtime, principal: Principal) -> SecondFactorView:
    """Return how one's own second factor stands."""
    user = _own(session, principal.user_id, lock=False)
    return SecondFactorView(
        on=user.totp_sealed is not None,
        since=user.totp_since,
        required=required(runtime, user),
        codes_left=repository.codes_left(session, user.id),
    )


def begin(session: Session, runtime: Runtime, principal: Principal, password: str) -> None:
    """Make a secret for one's app; what was there before stays in force until the new one's first code has come.

    Raises:
        PasswordRefusedError: the password is wrong.
    """
    service.require_password(session, principal, password)
    prepare(runtime, _own(session, principal.user_id))


def prepare(runtime: Runtime, user: User) -> None:
    """Make a secret that waits for its first code."""
    user.totp_pending = runtime.vault.seal_secret(_purpose(user), pyotp.random_base32().encode())


def waiting(runtime: Runtime, user: User) -> Enrolment:
    """Return what the app is to be told while the first code is awaited.

    Raises:
        ConflictError: no secret waits.
    """
    if user.totp_pending is None:
        raise ConflictError("Begin anew: the second factor was set up already, or never begun.")
    secret = runtime.vault.open_secret(_purpose(user), user.totp_pending).decode()
    return Enrolment(
        uri=pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER),
        secret=" ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
    )


def own_waiting(session: Session, runtime: Runtime, principal: Principal) -> Enrolment:
    """Return what one's own app is to be told."""
    return waiting(runtime, _own(session, principal.user_id, lock=False))


def confirm_own(session: Session, runtime: Runtime, principal: Principal, code: str) -> list[str]:
    """Take the first code of one's own app; every other session of the account ends. Return the recovery codes."""
    user = _own(session, principal.user_id)
    codes = confirm(session, runtime, user, code)
    repository.revoke(session, now=utc_now(), user_id=user.id, but=principal.session_id)
    return codes


def confirm(session: Session, runtime: Runtime, user: User, code: str) -> list[str]:
    """Put the waiting secret in force by its first code; return new recovery codes, to be shown once.

    Raises:
        UsageError: the code is not the app's present one.
        ConflictError: no secret waits.
    """
    if user.totp_pending is None:
        raise ConflictError("Begin anew: the second factor was set up already, or never begun.")
    step = _step_of(runtime, user, user.totp_pending, code, after=None)
    if step is None:
        raise UsageError("That is not the code the app shows now. Check the phone's clock, then try again.")
    user.totp_sealed, user.totp_pending = user.totp_pending, None
    user.totp_step, user.totp_since = step, utc_now()
    service.record(session, user, f"user:{user.id}", "second_factor_on")
    return _new_codes(session, user)


def take(session: Session, runtime: Runtime, user: User, code: str) -> None:
    """Return if this is the account's present code, or a recovery code; either is then used up.

    Raises:
        SignInRefusedError: it is neither, or the account is locked; failures count towards the lock.
    """
    service.require_open(user)
    if user.totp_sealed is None:
        raise ConflictError("This account has no second factor; sign in again.")
    typed = "".join(code.split()).replace("-", "").lower()
    step = _step_of(runtime, user, user.totp_sealed, typed, after=user.totp_step)
    if step is not None:
        user.totp_step = step
        return
    recovery = repository.unused_code(session, user.id, _hash(user.id, typed))
    if recovery is None:
        service.count_failure(session, user, what="code_refused")
        raise service.SignInRefusedError(_WRONG)
    recovery.used_at = utc_now()
    session.flush()
    service.record(session, user, f"user:{user.id}", "recovery_code_used", left=repository.codes_left(session, user.id))


def renew_codes(session: Session, principal: Principal, password: str) -> list[str]:
    """Make new recovery codes; the old ones are void.

    Raises:
        PasswordRefusedError: the password is wrong.
        ConflictError: there is no second factor they could stand in for.
    """
    service.require_password(session, principal, password)
    user = _own(session, principal.user_id)
    if user.totp_sealed is None:
        raise ConflictError("Set up the second factor first; recovery codes come with it.")
    return _new_codes(session, user)


def turn_off(session: Session, runtime: Runtime, principal: Principal, password: str) -> None:
    """Sign in by password alone from now on.

    Raises:
        PasswordRefusedError: the password is wrong.
        ConflictError: the role must have a second factor.
    """
    service.require_password(session, principal, password)
    user = _own(session, principal.user_id)
    if user.totp_sealed is None:
        raise ConflictError("There is no second factor to turn off.")
    if required(runtime, user):
        raise ConflictError(f"The role {user.role.label} signs in with a second factor; set up another device.")
    _forget(session, user)
    service.record(session, user, principal.actor, "second_factor_off")


def reset(session: Session, actor: Principal, user_id: str) -> None:
    """Let somebody who has lost app and recovery codes set up a new one; their sessions end."""
    user = service.managed(session, actor, user_id)
    _forget(session, user)
    ended = repository.revoke(session, now=utc_now(), user_id=user.id)
    service.record(session, user, actor.actor, "second_factor_reset", sessions_ended=ended)


def _forget(session: Session, user: User) -> None:
    user.totp_sealed = user.totp_pending = user.totp_step = user.totp_since = None
    repository.replace_codes(session, user.id, [])


def _own(session: Session, user_id: str, *, lock: bool = True) -> User:
    user = repository.by_id(session, user_id, lock=lock)
    if user is None:
        raise NotFoundError("There is no such account.")
    return user


def _step_of(runtime: Runtime, user: User, sealed: str, code: str, *, after: int | None) -> int | None:
    """Return the time step whose code this is: within the clocks' skew, and later than ``after``."""
    typed = "".join(code.split())
    if len(typed) != 6 or not (typed.isascii() and typed.isdigit()):
        return None
    totp = pyotp.TOTP(runtime.vault.open_secret(_purpose(user), sealed).decode(), interval=STEP_SECONDS)
    now = int(utc_now().timestamp()) // STEP_SECONDS
    found = None
    for step in range(now - SKEW, now + SKEW + 1):
        # No early end: how long it takes tells nothing of which step it was.
        if hmac.compare_digest(totp.generate_otp(step), typed) and (after is None or step > after):
            found = step
    return found


def _new_codes(session: Session, user: User) -> list[str]:
    plain = ["".join(secrets.choice(_LETTERS) for _ in range(16)) for _ in range(RECOVERY_CODES)]
    repository.replace_codes(session, user.id, [_hash(user.id, code) for code in plain])
    service.record(session, user, f"user:{user.id}", "recovery_codes_made", codes=len(plain))
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in plain]


def _hash(user_id: str, code: str) -> str:
    # 16 letters of 31 are 79 bits: no guessing, so no slow hash is needed.
    return hashlib.sha256(f"{user_id}\n{code}".encode()).hexdigest()


def _purpose(user: User) -> str:
    return f"totp:{user.id}"
