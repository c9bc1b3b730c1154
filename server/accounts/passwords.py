"""Hashing and rules of passwords."""

import secrets
from functools import cache

from pwdlib import PasswordHash

from shared.contracts.errors import UsageError

SHORTEST = 10
LONGEST = 200


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
    return _hasher().hash(password)


def matches(password: str, password_hash: str | None) -> bool:
    """Compare; for an unknown account (None) it takes as long and says no."""
    if len(password) > LONGEST:
        return False
    return _hasher().verify(password, password_hash or _nobody()) and password_hash is not None


def generate() -> str:
    """Return a random password that can be read aloud and typed."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))
