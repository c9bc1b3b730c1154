"""The signature of an enrolment kit: made by the centre, checked by the node before it trusts a word of it."""

from collections.abc import Callable
from datetime import datetime

from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import Kit
from shared.contracts.errors import (
    DataInvalidError,
    KitExpiredError,
    KitInvalidError,
    KitOtherServerError,
    SignatureInvalidError,
)
from shared.crypto.signing import VerifyKey, fingerprint


def sign_kit(kit: Kit, sign: Callable[[bytes], str]) -> Kit:
    """Return ``kit`` with its signature; ``sign`` is the centre's signing key at work."""
    return kit.model_copy(update={"signature": sign(_signed_bytes(kit))})


def verify_kit(kit: Kit, *, now: datetime) -> None:
    """Return if the kit is whole, names its own server and is still good.

    Raises:
        KitInvalidError: it was changed after the centre signed it.
        KitOtherServerError: it names another server than the one whose key signed it.
        KitExpiredError: it is past its date.
    """
    if kit.server_id != fingerprint(kit.keys.signing):
        raise KitOtherServerError("The kit names another server than the one that signed it; ask for a new kit.")
    try:
        VerifyKey.from_base64(kit.keys.signing).verify(_signed_bytes(kit), kit.signature)
    except (DataInvalidError, SignatureInvalidError):
        raise KitInvalidError("The kit is damaged or was changed; ask the centre for a new one.") from None
    if kit.expires_at <= now:
        raise KitExpiredError(f"The kit expired on {kit.expires_at:%Y-%m-%d %H:%M} UTC; ask the centre for a new one.")


def _signed_bytes(kit: Kit) -> bytes:
    return canonical_bytes(kit.model_copy(update={"signature": ""}))
