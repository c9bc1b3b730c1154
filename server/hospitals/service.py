"""Hospitals and their nodes: what others ask of them."""

from datetime import datetime

from sqlmodel import Session

import server.audit.service as audit
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.hospitals import repository
from server.hospitals.enrolment import approve, enrol, reject, request_enrolment, revoke, status_of
from server.hospitals.schemas import HospitalView, NodePrincipal, NodeView
from server.models import Hospital, Node
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.enrolment import (
    EnrolmentState,
    EnrolmentStatus,
    Heartbeat,
    HeartbeatReply,
    LedgerTotals,
    NodeMode,
)
from shared.contracts.errors import ForbiddenError, NotFoundError, UsageError

__all__ = [
    "approve",
    "approved_nodes",
    "enrol",
    "flower_key",
    "forget_proofs",
    "heartbeat",
    "list_hospitals",
    "name_of",
    "node_principal",
    "reject",
    "request_enrolment",
    "revoke",
    "set_flower_node",
    "set_tolerance",
    "status",
    "tolerances",
]
ONLINE_SECONDS = 30
_SILENCE_PROTOCOL = 2
"""From this of the heartbeat on, a node reads for how long it was not heard."""
_MORE_PROTOCOL = 3
"""From this of the heartbeat on, a node looks for requests for more of a smear."""
MOST_TOLERANCE = 0.02
"""What the network lets a hospital lose by a model; the gate of the registry goes by it."""


def status(session: Session, runtime: Runtime, node_id: str) -> EnrolmentStatus:
    """Return where a node's enrolment stands."""
    return status_of(_node(session, node_id), runtime)


def heartbeat(session: Session, runtime: Runtime, node: NodePrincipal, beat: Heartbeat) -> HeartbeatReply:
    """Write down how a node is, and tell it what waits for it."""
    row = _node(session, node.node_id)
    row.last_seen_at, row.software, row.mode = utc_now(), beat.software[:100], beat.mode
    row.heartbeat = beat.model_dump(mode="json")
    tells_silence = beat.protocol >= _SILENCE_PROTOCOL
    return HeartbeatReply(
        current_model=repository.current_model(session),
        reports_waiting=repository.reports_waiting(session, node.hospital_id),
        superlink=runtime.settings.superlink or None,
        lost_seconds=_seconds_since(row.lost_at) if tells_silence else None,
        asked_seconds=_seconds_since(_asked_since(session, node)) if tells_silence else None,
        more_waiting=repository.more_waiting(session, node.node_id) if beat.protocol >= _MORE_PROTOCOL else None,
    )


def _asked_since(session: Session, node: NodePrincipal) -> datetime | None:
    """Return since when this node's answer is awaited.

    A round asks one node of each hospital and keeps only whose: where there are several none is told, for the others
    would start their SuperNodes again and again.
    """
    approved = repository.nodes(session, hospital_id=node.hospital_id, state=EnrolmentState.APPROVED)
    if [one.id for one in approved if one.mode is NodeMode.TRAINING] != [node.node_id]:
        return None
    return repository.asked_since(session, node.hospital_id)


def list_hospitals(session: Session, principal: Principal) -> list[HospitalView]:
    """Return hospitals with their nodes; hospital IT sees its own only."""
    only = (principal.hospital_id or "") if principal.role is Role.HOSPITAL_IT else None
    nodes: dict[str, list[Node]] = {}
    for node in repository.nodes(session, hospital_id=only):
        nodes.setdefault(node.hospital_id, []).append(node)
    return [
        HospitalView(
            id=hospital.id,
            name=hospital.name,
            gate_tolerance=hospital.gate_tolerance,
            nodes=[_view(node, hospital) for node in nodes.get(hospital.id, [])],
        )
        for hospital in repository.hospitals(session, only=only)
    ]


def name_of(session: Session, hospital_id: str) -> str:
    """Return a hospital's name, its id where it has none."""
    hospital = repository.hospital(session, hospital_id)
    return hospital.name if hospital else hospital_id


def tolerances(session: Session) -> dict[str, float]:
    """Return, per hospital that has one of its own, what share it may lose by a model."""
    found = ((hospital.id, hospital.gate_tolerance) for hospital in repository.hospitals(session, only=None))
    return {hospital: own for hospital, own in found if own is not None}


def set_tolerance(session: Session, principal: Principal, hospital_id: str, tolerance: float | None) -> None:
    """Keep what a hospital may lose by a model, for models registered from now on; None: what the network allows.

    Its own staff may set it too: it can only be stricter than the network's.

    Raises:
        ForbiddenError: another hospital's staff, or a role that does not decide on models.
        UsageError: it is laxer than the network's, or no share.
    """
    own = principal.role is Role.HOSPITAL_IT and principal.hospital_id == hospital_id
    if not own and principal.role not in {Role.COORDINATOR, Role.ADMIN}:
        raise ForbiddenError("Only this hospital's staff or a coordinator may set what it may lose by a model.")
    if tolerance is not None and not 0 <= tolerance <= MOST_TOLERANCE:
        raise UsageError(
            f"Give a share from 0 to {MOST_TOLERANCE:g}, which the network allows: a hospital can be stricter."
        )
    row = repository.hospital(session, hospital_id)
    if row is None:
        raise NotFoundError("There is no such hospital.")
    row.gate_tolerance = tolerance
    audit.record(
        session,
        subject=f"hospital:{hospital_id}",
        actor=principal.actor,
        action="hospital.tolerance",
        data={"share": "the network's" if tolerance is None else tolerance},
    )


def approved_nodes(session: Session) -> list[NodeView]:
    """Return all approved nodes: whom a run may ask."""
    names = {hospital.id: hospital for hospital in repository.hospitals(session, only=None)}
    return [_view(node, names[node.hospital_id]) for node in repository.nodes(session, state=EnrolmentState.APPROVED)]


def node_principal(session: Session, node_id: str) -> NodePrincipal:
    """Return a node with its public keys, for sealing and verifying."""
    return principal_of(_node(session, node_id))


def flower_key(session: Session, node_id: str) -> str:
    """Return the node's public Flower key, OpenSSH format."""
    return _node(session, node_id).flower_key


def set_flower_node(session: Session, node_id: str, flower_node_id: str | None) -> None:
    """Keep which SuperLink node this is."""
    _node(session, node_id).flower_node_id = flower_node_id


def forget_proofs(session: Session) -> None:
    """Drop request proofs that nobody could use again."""
    repository.forget_proofs(session, utc_now())


def principal_of(node: Node) -> NodePrincipal:
    """Return the node as a principal."""
    return NodePrincipal(
        node_id=node.id,
        hospital_id=node.hospital_id,
        mode=node.mode,
        signing_key=node.signing_key,
        envelope_key=node.envelope_key,
    )


def _seconds_since(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (utc_now() - moment).total_seconds())


def _node(session: Session, node_id: str) -> Node:
    node = repository.node(session, node_id)
    if node is None:
        raise NotFoundError("There is no such node; enrol it with a kit.")
    return node


def _view(node: Node, hospital: Hospital) -> NodeView:
    beat = Heartbeat.model_validate(node.heartbeat) if node.heartbeat else None
    seen = node.last_seen_at
    return NodeView(
        id=node.id,
        hospital_id=hospital.id,
        hospital_name=hospital.name,
        mode=node.mode,
        state=node.state,
        fingerprint=node.fingerprint,
        software=node.software,
        enrolled_at=node.enrolled_at,
        last_seen_at=seen,
        online=seen is not None and (utc_now() - seen).total_seconds() <= ONLINE_SECONDS,
        model_version=beat.model_version if beat else None,
        processes=beat.processes if beat else {},
        ledger=beat.ledger if beat else LedgerTotals(),
        outbox=beat.outbox if beat else 0,
        attention=list(beat.attention) if beat else [],
        flower_node_id=node.flower_node_id,
    )
