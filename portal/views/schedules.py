"""Schedules: runs that launch themselves at a time of the week."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.views.rounds import Planned
from server.deps import CommittingRoute, SessionDep
from server.federation import schedule
from server.federation.schedule import When
from shared.contracts.errors import UsageError

router = APIRouter(route_class=CommittingRoute)


@router.post("/schedules", name="schedule_add")
def add(
    session: SessionDep,
    who: SignedIn,
    plan: Planned,
    day: Annotated[str, Form(pattern="^([0-6]|daily)$")] = "6",
    at: Annotated[str, Form(max_length=5)] = "02:00",
    least_labels: Annotated[int, Form(ge=0, le=10_000_000)] = 0,
) -> Response:
    """Keep what the launch form plans, for its time of the week."""
    hour, _, minute = at.partition(":")
    try:
        when = When(
            weekday=None if day == "daily" else int(day),
            hour=int(hour),
            minute=int(minute or "0"),
            least_labels=least_labels,
        )
    except ValueError as error:
        raise UsageError("Give the time as HH:MM.") from error
    schedule.add(session, who, plan, when)
    return RedirectResponse("/rounds#schedules", status_code=303)


@router.post("/schedules/{schedule_id}/remove", name="schedule_remove")
def remove(session: SessionDep, who: SignedIn, schedule_id: str) -> Response:
    """Forget a schedule."""
    schedule.remove(session, who, schedule_id)
    return RedirectResponse("/rounds#schedules", status_code=303)
