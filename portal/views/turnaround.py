"""How long cases take, by hospital and priority."""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from portal import turnaround_charts as charts
from portal.access import SignedIn
from portal.rendering import page
from server.cases import turnaround as figures
from server.cases.turnaround import Turnaround
from server.deps import CommittingRoute, SessionDep

router = APIRouter(route_class=CommittingRoute)
Span = Literal["7", "30", "90"]


@router.get("/turnaround.json", name="turnaround_json")
def turnaround_json(session: SessionDep, who: SignedIn, days: Span = "30") -> Turnaround:
    """The figures as data."""
    return figures.turnaround(session, who, int(days))


@router.get("/turnaround", name="turnaround")
def turnaround(request: Request, session: SessionDep, who: SignedIn, days: Span = "30") -> Response:
    """The figures with their pictures."""
    found = figures.turnaround(session, who, int(days))
    return page(
        request, "turnaround/page.html", found=found, spans=figures.SPANS, chart=charts, columns=charts.columns(found)
    )
