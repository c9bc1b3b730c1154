"""Signing in: the password, then a code where the account has a second factor, or setting one up where it must.

Between the two steps a person holds a token that opens nothing but the second step, for ten minutes.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from sqlmodel import Session

from server.accounts import repository, second_factor, service, throttle
from server.accounts.schemas import Enrolment
from server.models import SignInStep, User
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.errors import UnauthenticatedError

STEP_LIFE: Final = timedelta(minutes=10)


class Next(StrEnum):
    """What is still to be done."""

    NOTHING = "nothing"
    CODE = "code"
    SET_UP = "set_up"


@dataclass(frozen=True)
class Client:
    """Where somebody signs in from."""

    address: str
    user_agent: str = ""


@dataclass(frozen=True)
class Begun:
    """A sign-in after its first step."""

    next: Next
    token: str
    """Of the session where nothing is left to do, of the step otherwise."""


@dataclass(frozen=True)
class Finished:
    """A session, and the recovery codes that are shown once where the second factor was set up just now."""

    token: str
    codes: list[str]


class StepOverError(UnauthenticatedError):
    """The time between the steps was too long, or the sign-in was finished elsewhere."""


def compare_ahead(session: Session, runtime: Runtime, username: str, password: str, client: Client) -> None:
    """Compare the password before ``session`` begins its transaction (`service.compare_ahead`).

    Raises:
        TooManyAttemptsError: too many attempts from this address failed; nothing is compared.
    """
    with runtime.database.session(read_only=True) as reading:
        throttle.require_room(reading, client.address)
    service.compare_name_ahead(session, runtime, username, password)


def begin(session: Session, runtime: Runtime, username: str, password: str, client: Client) -> Begun:
    """Take name and password.

    Raises:
        SignInRefusedError: they are nobody's, or the account is locked or shut.
        TooManyAttemptsError: too many attempts from this address failed.
    """
    throttle.require_room(session, client.address)
    try:
        found = service.authenticate(session, username, password)
    except service.SignInRefusedError:
        throttle.count(session, client.address)
        raise
    return go_on(session, runtime, found.id, client)


def go_on(session: Session, runtime: Runtime, user_id: str, client: Client) -> Begun:
    """Open a session for a person whose password is known to be right, or ask for what is still to come."""
    user = service.require_open(repository.by_id(session, user_id, lock=True))
    if user.totp_sealed is None and not second_factor.required(runtime, user):
        token, _ = service.open_session(session, user.id, user_agent=client.user_agent)
        return Begun(Next.NOTHING, token)
    if user.totp_sealed is None:
        second_factor.prepare(runtime, user)
    now, token = utc_now(), secrets.token_urlsafe(32)
    repository.end_steps(session, user_id=user.id, now=now)
    repository.add(session, SignInStep(id=service.token_id(token), user_id=user.id, expires_at=now + STEP_LIFE))
    return Begun(Next.SET_UP if user.totp_sealed is None else Next.CODE, token)


def step(session: Session, token: str) -> Next:
    """Return what a step waits for.

    Raises:
        StepOverError: nothing, any more.
    """
    return Next.SET_UP if _waiting(session, token).totp_sealed is None else Next.CODE


def enrolment(session: Session, runtime: Runtime, token: str) -> Enrolment:
    """Return what the app of somebody who must set up a second factor is to be told."""
    return second_factor.waiting(runtime, _waiting(session, token))


def finish(session: Session, runtime: Runtime, token: str, code: str, client: Client) -> Finished:
    """Take the code and open the session.

    Raises:
        StepOverError: the step is over; begin with the password.
        SignInRefusedError: the code is wrong or was used before, or the account is locked.
        UsageError: it is not the first code of the app that is being set up.
        TooManyAttemptsError: too many attempts from this address failed.
    """
    throttle.require_room(session, client.address)
    user = service.require_open(_waiting(session, token))
    codes: list[str] = []
    if user.totp_sealed is None:
        codes = second_factor.confirm(session, runtime, user, code)
    else:
        try:
            second_factor.take(session, runtime, user, code)
        except service.SignInRefusedError:
            throttle.count(session, client.address)
            raise
    repository.end_steps(session, user_id=user.id, now=utc_now())
    opened, _ = service.open_session(session, user.id, user_agent=client.user_agent)
    return Finished(opened, codes)


def _waiting(session: Session, token: str) -> User:
    found = repository.step_and_user(session, service.token_id(token)) if token else None
    if found is None or found[0].expires_at <= utc_now():
        raise StepOverError("That took too long. Sign in again.")
    return found[1]
