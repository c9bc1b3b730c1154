"""Request proofs: each request of a node carries a fresh signature over what it asks for.

A proof is a JWT (Ed25519) in the header ``HV-Proof``, in the spirit of DPoP (RFC 9449) with the body bound
in as well. There is no bearer secret to steal: a proof is good for one method, path and body, one server,
and one minute; the server remembers each ``jti`` for that minute, so it is good for one use.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import extract_compact

from shared.contracts.errors import UnauthenticatedError
from shared.crypto.signing import SigningKey, VerifyKey

PROOF_HEADER: Final = "HV-Proof"
PROOF_WINDOW: Final = timedelta(seconds=60)
"""How far the node's clock may be off, either way; remember a ``jti`` for twice this long."""
_ALGORITHM: Final = "Ed25519"
_TYPE: Final = "hv-proof+jwt"
_LONGEST: Final = 4096
_ISSUER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")


def make_proof(
    key: SigningKey,
    *,
    node_id: str,
    server_id: str,
    method: str,
    path: str,
    body: bytes,
    now: datetime | None = None,
) -> str:
    """Return the proof for one request.

    ``path`` is the path with its query as sent (``/api/node/v1/reports?since=3``), without scheme and host,
    so that a proxy that changes those does not break it. ``now`` is for tests and for a node that knows its
    clock is off.
    """
    claims = {
        "iss": node_id,
        "aud": server_id,
        "htm": method.upper(),
        "htu": path,
        "bdh": _body_hash(body),
        "iat": int((now or datetime.now(UTC)).timestamp()),
        "jti": secrets.token_urlsafe(16),
    }
    header = {"alg": _ALGORITHM, "typ": _TYPE}
    return jwt.encode(header, claims, _private_jwk(key), algorithms=[_ALGORITHM])


def proof_issuer(token: str) -> str:
    """Return the *unverified* node id, only to look up the key that `check_proof` then needs.

    Raises:
        UnauthenticatedError: it is not a proof at all.
    """
    if len(token) > _LONGEST:
        raise _refused()
    try:
        claims: Any = json.loads(extract_compact(token.encode()).payload)  # JSON of an unknown sender
    except (JoseError, ValueError, RecursionError):
        raise _refused() from None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    if not isinstance(issuer, str) or not _ISSUER.fullmatch(issuer):
        raise _refused()
    return issuer


def check_proof(
    token: str,
    *,
    key: VerifyKey,
    node_id: str,
    server_id: str,
    method: str,
    path: str,
    body: bytes,
    now: datetime,
) -> str:
    """Return the proof's ``jti`` if it proves that this node made exactly this request just now.

    The caller then refuses a ``jti`` it has seen from this node within twice `PROOF_WINDOW`.

    Raises:
        UnauthenticatedError: it does not.
    """
    if len(token) > _LONGEST:
        raise _refused()
    try:
        proof = jwt.decode(token, _public_jwk(key), algorithms=[_ALGORITHM])
    except (JoseError, ValueError, RecursionError):
        raise _refused() from None
    claims = proof.claims
    expected = {
        "iss": node_id,
        "aud": server_id,
        "htm": method.upper(),
        "htu": path,
        "bdh": _body_hash(body),
    }
    same = all(
        hmac.compare_digest(str(claims.get(name)).encode(errors="replace"), value.encode())
        for name, value in expected.items()
    )
    issued, token_id = claims.get("iat"), claims.get("jti")
    if proof.header.get("typ") != _TYPE or not same or not isinstance(token_id, str) or not token_id:
        raise _refused()
    if not isinstance(issued, int) or isinstance(issued, bool):
        raise _refused()
    if abs(now.timestamp() - issued) > PROOF_WINDOW.total_seconds():
        raise UnauthenticatedError("The request's signature is not fresh; set the node's clock (NTP) and try again.")
    return token_id


def _body_hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()


def _private_jwk(key: SigningKey) -> OKPKey:
    return OKPKey.import_key(key.to_pem())


def _public_jwk(key: VerifyKey) -> OKPKey:
    encoded = base64.urlsafe_b64encode(key.raw).rstrip(b"=").decode()
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": encoded})


def _refused() -> UnauthenticatedError:
    return UnauthenticatedError(
        "The request is not signed by this node's key; run `hematovision-node doctor` on the node."
    )
