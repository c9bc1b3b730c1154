"""Hashing and rules of passwords."""

import os
import secrets
import threading
from functools import cache
from typing import Final

from pwdlib import PasswordHash

from shared.contracts.errors import UsageError

SHORTEST = 10
LONGEST = 200
_LANES: Final = 4
"""Threads of one comparison; it takes 64 MiB too."""
_room: Final = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // _LANES))
"""For as many comparisons at a time as there are cores for: many people who sign in starve nobody who reads."""


@cache
def _hasher() -> PasswordHash:
    return PasswordHash.recommended()


@cache
def _nobody() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def hash_password(password: str) -> str:
    """Return the Argon2id hash.

    Raises:
        UsageError: the password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(f"A password has {SHORTEST} to {LONGEST} characters; choose another.")
    with _room:
        return _hasher().hash(password)


def matches(password: str, password_hash: str | None) -> bool:
    """Compare; for an unknown account (None) it takes as long and says no."""
    if len(password) > LONGEST:
        return False
    known = password_hash or _nobody()
    with _room:
        return _hasher().verify(password, known) and password_hash is not None


def generate() -> str:
    """Return a random password that can be read aloud and typed."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))
