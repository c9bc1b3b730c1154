"""A proof is good for one node, server, method, path, body and minute."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from shared.contracts.errors import UnauthenticatedError
from shared.crypto.signing import SigningKey
from shared.crypto.tokens import check_proof, make_proof, proof_issuer

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REQUEST: dict[str, Any] = {
    "node_id": "node-a",
    "server_id": "centre",
    "method": "POST",
    "path": "/api/node/v1/heartbeat?x=1",
    "body": b"{}",
}


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


def test_proof_names_its_node_and_passes_once_each(key: SigningKey) -> None:
    proofs = [make_proof(key, **REQUEST, now=NOW) for _ in range(2)]
    assert proof_issuer(proofs[0]) == "node-a"
    assert len({check_proof(proof, key=key.public, **REQUEST, now=NOW) for proof in proofs}) == 2


def test_proof_uses_the_clock(key: SigningKey) -> None:
    assert check_proof(make_proof(key, **REQUEST), key=key.public, **REQUEST, now=datetime.now(UTC))


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "node-b"},
        {"server_id": "other"},
        {"method": "GET"},
        {"path": "/api/node/v1/heartbeat"},
        {"body": b"{ }"},
    ],
)
def test_proof_refused_for_another_request(key: SigningKey, change: dict[str, Any]) -> None:
    proof = make_proof(key, **REQUEST, now=NOW)
    with pytest.raises(UnauthenticatedError):
        check_proof(proof, key=key.public, **(REQUEST | change), now=NOW)


@pytest.mark.parametrize("off", [timedelta(seconds=61), timedelta(seconds=-61)])
def test_proof_refused_outside_its_minute(key: SigningKey, off: timedelta) -> None:
    proof = make_proof(key, **REQUEST, now=NOW)
    with pytest.raises(UnauthenticatedError, match="clock"):
        check_proof(proof, key=key.public, **REQUEST, now=NOW + off)
    assert check_proof(proof, key=key.public, **REQUEST, now=NOW + off * 0.9)


def test_proof_refused_for_another_key(key: SigningKey) -> None:
    with pytest.raises(UnauthenticatedError):
        check_proof(make_proof(SigningKey.generate(), **REQUEST, now=NOW), key=key.public, **REQUEST, now=NOW)


@pytest.mark.parametrize("claims", [b'{"iss": "\\ud800"}', b'{"iss": "a\\u0000"}', b'{"iss": ""}', b"[" * 2500])
def test_proof_with_an_odd_issuer_is_refused(claims: bytes) -> None:
    header, payload = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg": "Ed25519"}', claims))
    with pytest.raises(UnauthenticatedError):
        proof_issuer(f"{header}.{payload}.AA")


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c", "é.é.é", "x" * 5000, "e30.W10.AA", "eyJhbGciOiJub25lIn0.e30."]
)
def test_proof_refused_when_it_is_something_else(key: SigningKey, token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        proof_issuer(token)
    with pytest.raises(UnauthenticatedError):
        check_proof(token, key=key.public, **REQUEST, now=NOW)


def test_proof_refused_with_another_algorithm_or_type(key: SigningKey) -> None:
    claims = {"iss": "node-a", "iat": int(NOW.timestamp())}
    confused = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key.public.raw))
    other_type = jwt.encode({"alg": "Ed25519"}, claims, OKPKey.import_key(key.to_pem()), algorithms=["Ed25519"])
    for token in (confused, other_type):
        with pytest.raises(UnauthenticatedError):
            check_proof(token, key=key.public, **REQUEST, now=NOW)
