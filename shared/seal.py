"""Binds an answer to its request, its tensors and its node, across everything that carries it.

Between a node's trainer and the centre's ServerApp an answer passes a relay, a SuperNode and a SuperLink. The trainer
therefore signs, with the node's Ed25519 key, the digests of what it was asked and of what it answers. An answer that
was altered, swapped with another node's, or taken from an earlier exchange (each request carries a fresh nonce) fails.
"""

from hashlib import sha256

from pydantic import ValidationError

from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import SignatureInvalidError
from shared.contracts.training import ReplySeal
from shared.crypto.signing import SigningKey, VerifyKey

_DOMAIN = b"hematovision/reply/1\n"
_MAX_SEAL = 2048


def request_digest(text: str, tensors: bytes) -> str:
    """Return the SHA-256 (hex) that stands for a request: its JSON ``text``, exactly as sent, and its tensors."""
    parts = sha256(text.encode()).digest() + sha256(tensors).digest()
    return sha256(b"hematovision/request/1\n" + parts).hexdigest()


def seal(key: SigningKey, request: str, reply: str, tensors: bytes) -> str:
    """Return the JSON of a `ReplySeal` over an answer; ``request`` is a `request_digest`, ``reply`` the JSON text."""
    draft = ReplySeal(
        request_sha256=request,
        reply_sha256=sha256(reply.encode()).hexdigest(),
        tensors_sha256=sha256(tensors).hexdigest(),
        signature="",
    )
    return draft.model_copy(update={"signature": key.sign(_signed(draft))}).model_dump_json()


def check_seal(text: str, key: VerifyKey, request: str, reply: str, tensors: bytes) -> None:
    """Return if ``text`` is this node's seal over exactly this answer to exactly this request.

    Raises:
        SignatureInvalidError: with what does not fit.
    """
    if len(text) > _MAX_SEAL:
        raise SignatureInvalidError("The node's answer is not signed; its software may be of another version.")
    try:
        found = ReplySeal.model_validate_json(text)
    except ValidationError:
        raise SignatureInvalidError(
            "The node's answer is not signed; its software may be of another version."
        ) from None
    key.verify(_signed(found), found.signature)
    if found.request_sha256 != request:
        raise SignatureInvalidError("The node's answer belongs to another request, and is not used.")
    if found.reply_sha256 != sha256(reply.encode()).hexdigest():
        raise SignatureInvalidError("The node's answer was altered on its way, and is not used.")
    if found.tensors_sha256 != sha256(tensors).hexdigest():
        raise SignatureInvalidError("The node's update was altered on its way, and is not used.")


def _signed(draft: ReplySeal) -> bytes:
    return _DOMAIN + canonical_bytes(draft.model_copy(update={"signature": ""}))
