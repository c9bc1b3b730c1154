"""What nodes tell about federated runs."""

from fastapi import APIRouter

from server.deps import CommittingRoute, SessionDep
from server.federation import service
from server.hospitals.auth import CurrentNode
from shared.contracts.training import Census

router = APIRouter(prefix="/api/node/v1", tags=["federation"], route_class=CommittingRoute)


@router.post("/census", status_code=204)
def post_census(census: Census, session: SessionDep, node: CurrentNode) -> None:
    """Keep what the node could train on."""
    service.store_census(session, node, census)
