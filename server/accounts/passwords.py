"""Hashing and rules of passwords."""

import os
import secrets
import threading
from functools import cache
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from shared.contracts.errors import UsageError

SHORTEST = 10
LONGEST = 200
_KIBIBYTES: Final = 46 * 1024
"""Of a comparison, in one pass and one thread: of the settings, all of one strength, that the OWASP Password Storage
Cheat Sheet gives, the first. Every signature costs one: with four threads it took all cores from those who read."""
_EARLIER: Final = "$argon2id$v=19$m=65536,t=3,p=4$"
"""How hashes begin that were made at three times the cost, before."""
_room: Final = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
"""For comparisons on half of the cores at a time: many people who sign in starve nobody who reads."""


@cache
def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(memory_cost=_KIBIBYTES, time_cost=1, parallelism=1),))


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


def renewed(password: str, password_hash: str) -> str | None:
    """Return another hash of a password that matches this one, if this one costs what it did before; None: it does not.

    A comparison that takes longer than an unknown account's would tell that the account is there.
    """
    return hash_password(password) if password_hash.startswith(_EARLIER) else None


def generate() -> str:
    """Return a random password that can be read aloud and typed."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))
