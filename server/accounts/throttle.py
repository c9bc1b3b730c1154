"""Failed attempts by network address: whoever tries many names from one place is not listened to for a while.

The lock of an account stops guessing at one account; this stops guessing at many. Kept in the database, so that all
processes of the portal count together.
"""

import math
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import ClassVar, Final

from sqlmodel import Session

from server.accounts import repository
from server.audit import service as audit
from server.db.session import KeepsChangesError
from server.models import FailedSignIn
from server.models.base import utc_now
from shared.contracts.errors import ExitCode, HematovisionError

MOST_FAILURES: Final = 30
WINDOW: Final = timedelta(minutes=15)


class TooManyAttemptsError(HematovisionError, KeepsChangesError):
    """Too many attempts from one address failed; nothing was looked at."""

    code, status, exit_code = "too_many_attempts", 429, ExitCode.FORBIDDEN
    retry_after: ClassVar[int] = int(WINDOW.total_seconds())


def require_room(session: Session, address: str) -> None:
    """Return if attempts from this address are looked at.

    Raises:
        TooManyAttemptsError: too many of them failed of late.
    """
    now = utc_now()
    failed = repository.failures(session, place_of(address), now - WINDOW)
    if len(failed) < MOST_FAILURES:
        return
    # It opens again once the oldest of those that fill the measure no longer counts.
    minutes = math.ceil((failed[MOST_FAILURES - 1] + WINDOW - now).total_seconds() / 60)
    raise TooManyAttemptsError(f"Too many attempts from your network failed. Wait {minutes} minutes and try again.")


def count(session: Session, address: str) -> None:
    """Count a failed attempt; the one that fills the measure is audited."""
    now, place = utc_now(), place_of(address)
    repository.add_failure(session, FailedSignIn(address=place, at=now), forget=now - WINDOW)
    failed = len(repository.failures(session, place, now - WINDOW))
    if failed == MOST_FAILURES:
        audit.record(
            session,
            subject=f"address:{place}",
            actor="system",
            action="account.address_held",
            data={"failures": failed, "minutes": round(WINDOW.total_seconds() / 60)},
        )


def place_of(address: str) -> str:
    """Return what is counted together: an IPv4 address, or the /64 of an IPv6 address, which is one customer's."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64] or "unknown"
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
