"""What nodes tell about federated runs, and fetch for them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.federation import bases, service
from server.hospitals.auth import CurrentNode
from shared.contracts.training import Census

router = APIRouter(prefix="/api/node/v1", tags=["federation"], route_class=CommittingRoute)


@router.post("/census", status_code=204)
def post_census(census: Census, session: SessionDep, node: CurrentNode) -> None:
    """Keep what the node could train on."""
    service.store_census(session, node, census)


@router.get("/bases/{base_sha256}")
def base(
    base_sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    session: SessionDep,
    runtime: RuntimeDep,
    node: CurrentNode,
) -> Response:
    """Return the pretrained network of this hash."""
    return Response(bases.read(session, runtime.store, node, base_sha256), media_type="application/octet-stream")
