"""For load balancers and launchers."""

from fastapi import APIRouter
from sqlalchemy import text

from server.deps import CommittingRoute, SessionDep

router = APIRouter(route_class=CommittingRoute)


@router.get("/healthz", name="healthz")
def healthz(session: SessionDep) -> dict[str, str]:
    """Say whether the portal reaches its database."""
    session.connection().execute(text("SELECT 1"))
    return {"status": "ok"}
