"""The worklist: what there is to read, most urgent first."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from portal.access import SignedIn
from portal.rendering import is_partial, page
from server.cases import service as cases
from server.cases.schemas import WorklistFilter, WorklistRow
from server.deps import SessionDep

router = APIRouter()


class WorklistQuery(BaseModel):
    """The filter form; an empty field means all."""

    search: str = ""
    hospital: str = ""
    flag: str = ""
    mine: str = ""
    state: Literal["open", "done", "all"] = "open"

    def as_filter(self) -> WorklistFilter:
        """Return what the service understands."""
        return WorklistFilter(
            hospital_id=self.hospital or None,
            flag=self.flag or None,
            mine=bool(self.mine),
            state=self.state,
            search=self.search.strip()[:100],
        )


@router.get("/worklist", name="worklist")
def worklist(
    request: Request, session: SessionDep, who: SignedIn, query: Annotated[WorklistQuery, Query()]
) -> Response:
    """The whole page, or the part that filters and the ten-second refresh replace."""
    found = cases.worklist(session, who, query.as_filter())
    template = "worklist/rows.html" if is_partial(request) else "worklist/page.html"
    filtered = bool(query.search or query.hospital or query.flag or query.mine or query.state != "open")
    return page(request, template, worklist=found, query=query, filtered=filtered, due=due)


def due(row: WorklistRow) -> tuple[int, str, str]:
    """Return how much of the turn-around time is used: fifths, tone and words."""
    now = datetime.now(UTC)
    whole = max(1.0, (row.due_at - row.received_at).total_seconds())
    used = (now - row.received_at).total_seconds() / whole
    left = (row.due_at - now).total_seconds()
    tone = "late" if left < 0 else "soon" if used > 0.75 else ""
    minutes = round(abs(left) / 60)
    words = f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
    return min(5, max(0, int(used * 5) + 1)), tone, f"{words} over time" if left < 0 else f"due in {words}"
