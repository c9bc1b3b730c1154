"""Who asks: a node proves each request with its signing key; nothing here trusts a header alone."""

import base64
import json
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from server.deps import RuntimeDep
from server.hospitals import repository
from server.hospitals.schemas import NodePrincipal
from server.hospitals.service import principal_of
from server.models import Node, SeenProof
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.enrolment import EnrolmentRequest, EnrolmentState
from shared.contracts.errors import (
    KitOtherServerError,
    NotApprovedError,
    UnauthenticatedError,
)
from shared.crypto.signing import VerifyKey
from shared.crypto.tokens import PROOF_WINDOW, check_proof, proof_issuer

_REMEMBER = 2 * PROOF_WINDOW + timedelta(seconds=5)


async def read_body(request: Request) -> bytes:
    """Return the body, which a proof covers; `server.limits.BodyLimit` has bounded it."""
    return await request.body()


Body = Annotated[bytes, Depends(read_body)]
Proof = Annotated[str, Header(alias="HV-Proof")]


def any_node(request: Request, runtime: RuntimeDep, body: Body, proof: Proof = "") -> NodePrincipal:
    """Return the node that signed the request, whatever its state."""
    return _proven(request, runtime, body, proof, approved_only=False)


def current_node(request: Request, runtime: RuntimeDep, body: Body, proof: Proof = "") -> NodePrincipal:
    """Return the approved node that signed the request."""
    return _proven(request, runtime, body, proof, approved_only=True)


PendingNode = Annotated[NodePrincipal, Depends(any_node)]
CurrentNode = Annotated[NodePrincipal, Depends(current_node)]


def check_enrolment_proof(request: Request, runtime: Runtime, body: bytes, proof: str, asked: EnrolmentRequest) -> None:
    """Return if the request is signed by the very key it brings, for this centre."""
    if _audience(proof) not in {None, runtime.vault.server_id}:
        raise KitOtherServerError("This kit was made by another server; use it there, or ask this centre for a kit.")
    issuer = proof_issuer(proof)
    _check(request, runtime, body, proof, key=asked.keys.signing, node_id=issuer)


def _proven(request: Request, runtime: Runtime, body: bytes, proof: str, *, approved_only: bool) -> NodePrincipal:
    if not proof:
        raise UnauthenticatedError("The request is not signed; only an enrolled node may ask this.")
    node_id = proof_issuer(proof)
    # A transaction of its own: the proof stays used even if the request then fails.
    with runtime.database.session() as session:
        node = repository.node(session, node_id)
        if node is None:
            raise UnauthenticatedError("The centre does not know this node; enrol it with a kit.")
        jti = _check(request, runtime, body, proof, key=node.signing_key, node_id=node.id)
        _use_once(session, f"{node.id}:{jti}")
    if approved_only and node.state is not EnrolmentState.APPROVED:
        raise NotApprovedError(_why_not(node))
    return principal_of(node)


def _check(request: Request, runtime: Runtime, body: bytes, proof: str, *, key: str, node_id: str) -> str:
    raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope.get("query_string", b"")
    return check_proof(
        proof,
        key=VerifyKey.from_base64(key),
        node_id=node_id,
        server_id=runtime.vault.server_id,
        method=request.method,
        path=(raw_path + (b"?" + query if query else b"")).decode("ascii", "replace"),
        body=body,
        now=utc_now(),
    )


def _use_once(session: Session, jti: str) -> None:
    try:
        repository.add(session, SeenProof(jti=jti, expires_at=utc_now() + _REMEMBER))
    except IntegrityError:
        raise UnauthenticatedError("The request was sent before; sign it anew.") from None


def _audience(proof: str) -> str | None:
    """Return the unverified server id a proof names, only to choose the clearer refusal."""
    try:
        payload = proof.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["aud"])
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _why_not(node: Node) -> str:
    if node.state is EnrolmentState.PENDING:
        return "The node waits for approval; ask a coordinator to compare the fingerprint and approve it."
    return f"The node was {node.state.value} by the centre; ask a coordinator."
