"""Before a launch: every hospital's answer to the plan, and how long it would take."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page
from portal.views.rounds import Planned
from server.deps import CommittingRoute, SessionDep
from server.federation import dry_run
from server.federation.forecast import DryRunView

router = APIRouter(route_class=CommittingRoute)
_AGAIN_SECONDS: Final = 2
"""While answers are awaited the browser asks again by itself, script or no script."""


@router.post("/dry-runs", name="dry_run_start")
def start(session: SessionDep, who: SignedIn, plan: Planned) -> Response:
    """Ask the hospitals."""
    return RedirectResponse(f"/dry-runs/{dry_run.start(session, who, plan)}", status_code=303)


@router.get("/dry-runs/{dry_run_id}.json", name="dry_run_json")
def dry_run_json(session: SessionDep, who: SignedIn, dry_run_id: str) -> DryRunView:
    """The answers as data."""
    return dry_run.view(session, who, dry_run_id)


@router.get("/dry-runs/{dry_run_id}", name="dry_run")
def dry_run_page(request: Request, session: SessionDep, who: SignedIn, dry_run_id: str) -> Response:
    """The answers so far, and the launch of this very plan."""
    view = dry_run.view(session, who, dry_run_id)
    shown = page(request, "rounds/dry_run.html", view=view, plan=view.plan)
    if not view.ended:
        shown.headers["Refresh"] = str(_AGAIN_SECONDS)
    return shown
