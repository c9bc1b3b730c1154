"""The node API of requests for more of a smear: ask what waits, answer, upload, commit."""

from typing import Annotated

from fastapi import APIRouter, Path

from server.cases import supplements
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.hospitals.auth import CurrentNode
from shared.contracts.case import GrantRequest, Grants
from shared.contracts.supplement import MoreAnswer, SignedMoreRequest

router = APIRouter(prefix="/api/node/v1/requests", tags=["requests"], route_class=CommittingRoute)

RequestIdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@router.get("", name="requests")
def waiting(node: CurrentNode, session: SessionDep, runtime: RuntimeDep) -> tuple[SignedMoreRequest, ...]:
    """Say what waits for this node."""
    return supplements.waiting_for(session, runtime.vault, node_id=node.node_id)


@router.post("/{request_id}/answer", status_code=204, name="request_answer")
def answer(request_id: RequestIdPath, said: MoreAnswer, node: CurrentNode, session: SessionDep) -> None:
    """Take note of whether the hospital looks further, or why not."""
    supplements.answer(session, node_id=node.node_id, request_id=request_id, said=said)


@router.post("/{request_id}/grants", name="request_grants")
def grants(
    request_id: RequestIdPath, request: GrantRequest, node: CurrentNode, session: SessionDep, runtime: RuntimeDep
) -> Grants:
    """Give addresses to upload the parts to."""
    return supplements.grant(session, runtime.store, node_id=node.node_id, request_id=request_id, request=request)


@router.post("/{request_id}/commit", status_code=202, name="request_commit")
def commit(request_id: RequestIdPath, node: CurrentNode, session: SessionDep) -> None:
    """Note that the manifest is uploaded. Repeating it is harmless."""
    supplements.commit(session, node_id=node.node_id, request_id=request_id)
