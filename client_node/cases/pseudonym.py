"""Case ids and patient pseudonyms: random to everybody outside, and stable for the same patient of one hospital."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from client_node.home import NodeHome
from shared.contracts.errors import ConfigError
from shared.reporting.identity import Identity

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS: Final = 8
_HEX_DIGITS: Final = 32


def new_case_id() -> str:
    """Return a random case id, e.g. ``HV-7K2M9QXA``: it says nothing about hospital, patient or time."""
    return "HV-" + "".join(secrets.choice(_CROCKFORD) for _ in range(_LETTERS))


def patient_pseudonym(home: NodeHome | Path, identity: Identity | None, *, otherwise: str) -> str:
    """Return HMAC-SHA256 (32 hex digits) of who the patient is, under a key that never leaves the hospital.

    The hospital's own number identifies a patient, else name and birth date; without either, ``otherwise`` (the
    smear) does, so that the case links to no other.

    Raises:
        ConfigError: the key cannot be read.
    """
    try:
        key = NodeHome(home).pseudonym_key.read_bytes()
    except OSError:
        raise ConfigError("keys/pseudonym.key cannot be read: restore it from a backup.") from None
    if identity is None:
        who = f"smear\n{otherwise}"
    elif identity.patient_id:
        who = f"number\n{identity.patient_id}"
    else:
        who = f"name\n{identity.name.casefold()}\n{identity.birth_date or ''}"
    return hmac.new(key, who.encode(), hashlib.sha256).hexdigest()[:_HEX_DIGITS]
