"""How a node joins: the kit, the one request it is good for, and a person's decision."""

import hashlib
import secrets
from datetime import timedelta

from pydantic import TypeAdapter, ValidationError
from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.hospitals import repository
from server.models import EnrolmentKit, Hospital, Node
from server.models.base import utc_now
from server.outbox import service as outbox
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import EnrolmentRequest, EnrolmentState, EnrolmentStatus, Kit, NodeKeys
from shared.contracts.errors import (
    ConfigError,
    ConflictError,
    DataInvalidError,
    ForbiddenError,
    KitExpiredError,
    KitInvalidError,
    KitUsedError,
    NotFoundError,
    UsageError,
)
from shared.contracts.training import Identifier
from shared.crypto.envelope import EnvelopePublicKey
from shared.crypto.signing import VerifyKey, fingerprint

UPDATE_FLEET = "federation.welcome"
"""The task that makes the SuperLink know exactly the approved nodes."""
_DECIDERS = {Role.COORDINATOR, Role.ADMIN}
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


def enrol(
    session: Session,
    runtime: Runtime,
    *,
    actor: Principal,
    hospital_id: str,
    name: str,
    expires_hours: int = 72,
) -> Kit:
    """Make a one-time kit; the hospital is created with its first one. Only the token's hash is kept."""
    _require_decider(actor)
    try:
        _IDENTIFIER.validate_python(hospital_id)
    except ValidationError:
        raise UsageError("A hospital id has 1 to 100 letters, digits, dots, hyphens or underscores.") from None
    if not name.strip() or not 1 <= expires_hours <= 24 * 90:
        raise UsageError("Give the hospital's name, and let the kit live between one hour and 90 days.")
    hospital = repository.hospital(session, hospital_id)
    if hospital is None:
        hospital = Hospital(id=hospital_id, name=name.strip())
        repository.add(session, hospital)
    elif hospital.name != name.strip():
        raise ConflictError(f"The hospital {hospital_id} is known as “{hospital.name}”; use that name or another id.")
    token = secrets.token_urlsafe(32)
    row = EnrolmentKit(
        hospital_id=hospital.id,
        token_sha256=_hash(token),
        created_by=actor.actor,
        expires_at=utc_now() + timedelta(hours=expires_hours),
    )
    repository.add(session, row)
    _record(session, hospital.id, actor.actor, "kit_made", kit=row.id, expires_at=row.expires_at.isoformat())
    kit = _kit(runtime, hospital, token, row)
    return kit.model_copy(update={"signature": runtime.vault.sign(canonical_bytes(kit))})


def request_enrolment(session: Session, runtime: Runtime, request: EnrolmentRequest) -> EnrolmentStatus:
    """Take a node's public keys in against its kit's token; the same request again gets the same answer.

    The caller has checked that the request is signed by the signing key it brings.
    """
    kit = repository.kit_by_token(session, _hash(request.token))
    if kit is None or kit.hospital_id != request.hospital_id:
        raise KitInvalidError("The centre does not know this kit; ask for a new one.")
    if kit.used_at is not None:
        # A reply may have been lost on the way: whoever holds the same keys is the same node.
        earlier = repository.node_by_key(session, request.keys.signing)
        if earlier is None or earlier.kit_id != kit.id or not _same_keys(earlier, request.keys):
            raise KitUsedError("This kit has been used before; a kit is good for one node. Ask for a new one.")
        return status_of(earlier, runtime)
    if kit.expires_at <= utc_now():
        raise KitExpiredError(f"The kit expired on {kit.expires_at:%Y-%m-%d %H:%M} UTC; ask for a new one.")
    _check_keys(request)
    node = _node_for(session, request, kit)
    kit.used_at = utc_now()
    session.flush()
    _record(session, node.hospital_id, f"node:{node.id}", "node_asked", node=node.id, fingerprint=node.fingerprint)
    return status_of(node, runtime)


def _node_for(session: Session, request: EnrolmentRequest, kit: EnrolmentKit) -> Node:
    """Return the new node; one that was turned away before may ask again with a new kit."""
    node = repository.node_by_key(session, request.keys.signing)
    if node is not None:
        turned_away = node.state in {EnrolmentState.REJECTED, EnrolmentState.REVOKED}
        if not (turned_away and node.hospital_id == request.hospital_id and _same_keys(node, request.keys)):
            raise ConflictError("These keys belong to another enrolment; make new keys in an empty home folder.")
        node.state, node.kit_id, node.mode = EnrolmentState.PENDING, kit.id, request.mode
        return node
    node = Node(
        hospital_id=request.hospital_id,
        kit_id=kit.id,
        mode=request.mode,
        signing_key=request.keys.signing,
        envelope_key=request.keys.envelope,
        flower_key=request.keys.flower,
        fingerprint=fingerprint(request.keys.signing, request.keys.envelope, request.keys.flower),
        software=request.software[:100],
    )
    repository.add(session, node)
    return node


def approve(session: Session, *, principal: Principal, node_id: str, fingerprint: str | None = None) -> EnrolmentState:
    """Let a node in, once a person has compared the fingerprint; ``fingerprint`` is compared here too if given."""
    node = _to_decide(session, principal, node_id)
    if fingerprint is not None and fingerprint.strip().lower() != node.fingerprint:
        raise ConflictError(
            "The fingerprint differs from what the node sent: do not approve it. Compare again with the hospital."
        )
    if node.state is EnrolmentState.APPROVED:
        return node.state
    if node.state is not EnrolmentState.PENDING:
        raise ConflictError(f"The node was {node.state.value}; give the hospital a new kit.")
    _decide(session, principal, node, EnrolmentState.APPROVED)
    outbox.add(session, UPDATE_FLEET, {"node_id": node.id})
    return node.state


def reject(session: Session, *, principal: Principal, node_id: str) -> EnrolmentState:
    """Turn a waiting node away."""
    node = _to_decide(session, principal, node_id)
    if node.state is EnrolmentState.APPROVED:
        raise ConflictError("The node was approved already; revoke it instead.")
    _decide(session, principal, node, EnrolmentState.REJECTED)
    return node.state


def revoke(session: Session, *, principal: Principal, node_id: str) -> EnrolmentState:
    """Shut an approved node out, at once."""
    node = _to_decide(session, principal, node_id)
    if node.state is not EnrolmentState.APPROVED:
        raise ConflictError(f"The node is {node.state.value}; only an approved node can be revoked.")
    _decide(session, principal, node, EnrolmentState.REVOKED)
    outbox.add(session, UPDATE_FLEET, {"node_id": node.id})
    return node.state


def status_of(node: Node, runtime: Runtime) -> EnrolmentStatus:
    """Return what the node may know of itself."""
    approved = node.state is EnrolmentState.APPROVED
    return EnrolmentStatus(
        node_id=node.id,
        hospital_id=node.hospital_id,
        state=node.state,
        fingerprint=node.fingerprint,
        superlink=(runtime.settings.superlink or None) if approved else None,
    )


def _kit(runtime: Runtime, hospital: Hospital, token: str, row: EnrolmentKit) -> Kit:
    try:
        ca_pem = (runtime.settings.keys / "ca" / "ca.crt").read_text()
    except OSError:
        raise ConfigError("The server's CA certificate is missing (keys/ca/ca.crt); restore it.") from None
    return Kit(
        hospital_id=hospital.id,
        hospital_name=hospital.name,
        server_url=runtime.settings.public_url,
        server_id=runtime.vault.server_id,
        ca_pem=ca_pem,
        keys=runtime.vault.public_keys(),
        token=token,
        expires_at=row.expires_at,
    )


def _check_keys(request: EnrolmentRequest) -> None:
    VerifyKey.from_base64(request.keys.signing)
    EnvelopePublicKey.from_base64(request.keys.envelope)
    if not request.keys.flower.startswith("ecdsa-sha2-nistp384 "):
        raise DataInvalidError("The Flower key is not an EC P-384 key in OpenSSH format; run `init` again.")


def _same_keys(node: Node, keys: NodeKeys) -> bool:
    return (node.signing_key, node.envelope_key, node.flower_key) == (keys.signing, keys.envelope, keys.flower)


def _to_decide(session: Session, principal: Principal, node_id: str) -> Node:
    _require_decider(principal)
    node = repository.node(session, node_id, lock=True)
    if node is None:
        raise NotFoundError("There is no such node; see `hospital list`.")
    return node


def _decide(session: Session, principal: Principal, node: Node, state: EnrolmentState) -> None:
    node.state, node.decided_at, node.decided_by = state, utc_now(), principal.actor
    _record(session, node.hospital_id, principal.actor, f"node_{state.value}", node=node.id)


def _require_decider(principal: Principal) -> None:
    if principal.role not in _DECIDERS:
        raise ForbiddenError("Only a coordinator decides about hospitals and nodes.")


def _record(session: Session, hospital_id: str, actor: str, action: str, **data: object) -> None:
    audit.record(session, subject=f"hospital:{hospital_id}", actor=actor, action=f"hospital.{action}", data=data)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
