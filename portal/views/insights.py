"""Insights: agreement, the AI's drift, readers' time."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from portal import words
from portal.access import SignedIn
from portal.rendering import page
from server.deps import CommittingRoute, SessionDep
from server.insights import service as insights
from server.insights.schemas import Insights

router = APIRouter(route_class=CommittingRoute)
PERIODS: Final = {30: "30 days", 90: "90 days", 365: "a year"}
Days = Annotated[Literal["30", "90", "365"], Query()]


@router.get("/insights.json", name="insights_json")
def insights_json(session: SessionDep, who: SignedIn, days: Days = "90") -> Insights:
    """The figures as data."""
    return insights.insights(session, who, days=int(days))


@router.get("/insights", name="insights")
def insights_page(request: Request, session: SessionDep, who: SignedIn, days: Days = "90") -> Response:
    """The page."""
    found = insights.insights(session, who, days=int(days))
    return page(
        request,
        "insights/page.html",
        insights=found,
        periods=PERIODS,
        share_words=lambda value: words.percent(value, 0 if value in {0.0, 1.0} or value >= 0.1 else 1),
        size_words=lambda value: words.figure(value, 2),
    )
