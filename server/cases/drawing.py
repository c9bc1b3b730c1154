"""Which cases are read without the AI first: drawn as they come in, by nobody's choice.

The draw is a hash of the case's id keyed with the centre's signing key (Ed25519 signatures are deterministic, and only
the vault makes them): the same case is drawn the same way however often it comes in, and neither a hospital that makes
up case ids nor a reader can tell or choose the outcome. It is stored with the case, so that a new key or share changes
nothing for cases that are here.
"""

import hashlib
from typing import Final

from server.vault.port import Vault

_PURPOSE: Final = b"hematovision/blind-first-read/1\n"
_BYTES: Final = 8


def is_drawn(vault: Vault, case_id: str, share: float) -> bool:
    """Whether a case belongs to the ``share`` (0–1) that is read blind first."""
    digest = hashlib.sha256(vault.sign(_PURPOSE + case_id.encode()).encode()).digest()
    drawn = int.from_bytes(digest[:_BYTES]) / 256**_BYTES
    return drawn < share
