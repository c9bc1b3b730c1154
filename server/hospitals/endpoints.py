"""The node API of enrolment and heartbeat."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from server.deps import CommittingRoute, RuntimeDep, SessionDep, WritingSessionDep
from server.hospitals import service
from server.hospitals.auth import Body, CurrentNode, PendingNode, Proof, check_enrolment_proof
from shared.contracts.enrolment import EnrolmentRequest, EnrolmentStatus, Heartbeat, HeartbeatReply
from shared.contracts.errors import NotFoundError

router = APIRouter(prefix="/api/node/v1", tags=["nodes"], route_class=CommittingRoute)


class ServerIdentity(BaseModel):
    """Which centre answers here: a node compares it with its kit before it sends anything."""

    server_id: str


@router.get("/server")
def identity(runtime: RuntimeDep) -> ServerIdentity:
    """Say which centre this is; the only answer that needs no proof."""
    return ServerIdentity(server_id=runtime.vault.server_id)


@router.post("/enrolments", status_code=201)
def enrol(
    request: Request, runtime: RuntimeDep, session: SessionDep, body: Body, asked: EnrolmentRequest, proof: Proof = ""
) -> EnrolmentStatus:
    """Take a new node in, to wait for approval."""
    check_enrolment_proof(request, runtime, body, proof, asked)
    return service.request_enrolment(session, runtime, asked)


@router.get("/enrolments/{node_id}")
def enrolment(node_id: str, node: PendingNode, runtime: RuntimeDep, session: SessionDep) -> EnrolmentStatus:
    """Tell a node where its enrolment stands."""
    if node_id != node.node_id:
        raise NotFoundError("A node asks about itself only.")
    return service.status(session, runtime, node_id)


@router.post("/heartbeat")
def heartbeat(beat: Heartbeat, node: CurrentNode, runtime: RuntimeDep, session: WritingSessionDep) -> HeartbeatReply:
    """Hear how a node is."""
    return service.heartbeat(session, runtime, node, beat)
