"""The worklist: what there is to read, most urgent first, live, and given to whom."""

from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Form, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import Session
from sse_starlette import EventSourceResponse
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal import worklist_words
from portal.access import SignedIn
from portal.rendering import page, render, wants_json
from portal.sessions import SESSION_COOKIE
from portal.worklist_feed import LONGEST, follow
from server.accounts import colleagues
from server.accounts.schemas import Principal
from server.cases import saved_views, worklist
from server.cases.schemas import Sort, WorklistFilter
from server.consult import service as consult
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from shared.contracts.case import Priority
from shared.contracts.errors import UsageError
from shared.text import typed

router = APIRouter(route_class=CommittingRoute)
MOST_ROWS = 1000
"""How many lines a page reads anew at once."""
CaseIds = Annotated[list[str], Form(min_length=1, max_length=worklist.MOST_AT_ONCE)]


class WorklistQuery(BaseModel):
    """The filter form; an empty field means all."""

    model_config = ConfigDict(extra="ignore")

    search: str = ""
    hospital: str = ""
    priority: Literal["", "stat", "urgent", "routine"] = ""
    flag: str = ""
    reader: str = ""
    late: str = ""
    asked: str = ""
    state: Literal["open", "waiting", "reading", "done", "all"] = "open"
    sort: Literal["", "urgency", "due", "waiting", "hospital", "flags", "cells", "doubtful", "reader", "case"] = ""
    down: str = ""
    view: str = ""

    def as_filter(self) -> WorklistFilter:
        """Return what the service understands."""
        return WorklistFilter(
            hospital_id=typed(self.hospital) or None,
            flag=typed(self.flag) or None,
            priority=Priority(self.priority) if self.priority else None,
            reader=typed(self.reader)[:100],
            late=bool(self.late),
            asked=bool(self.asked),
            state=self.state,
            search=typed(self.search)[:100],
            sort=Sort(self.sort or "urgency"),
            descending=bool(self.down),
        )


class RowsQuery(WorklistQuery):
    """Which lines of the list."""

    after: str = ""
    """Those behind this case."""
    most: int = Field(default=worklist.PAGE, ge=1, le=MOST_ROWS)


class LinesQuery(WorklistQuery):
    """Which lines, by name."""

    case_id: list[str] = Field(default=[], max_length=200)


@router.get("/worklist", name="worklist")
def worklist_page(
    request: Request, session: SessionDep, who: SignedIn, query: Annotated[WorklistQuery, Query()]
) -> Response:
    """The whole page; opened without filters, a person's default view."""
    saved = saved_views.views_of(session, who)
    if not request.query_params:
        default = next((view for view in saved if view.is_default), None)
        if default is not None:
            return RedirectResponse(worklist_words.query_of(default.wanted, view=default.id), status_code=303)
    wanted, shown = query.as_filter(), _list(session, who, query, most=worklist.PAGE)
    chosen = next((view for view in saved if view.id == query.view), None)
    return page(
        request,
        "worklist/page.html",
        tabs=worklist_words.tabs(saved, wanted, query.view),
        chosen=chosen,
        differs=chosen is not None and chosen.wanted != wanted,
        colleagues=colleagues.readers(session),
        tab_title=worklist_words.title(shown["worklist"]),
        **shown,
    )


@router.get("/worklist/rows", name="worklist_rows")
def worklist_rows(
    request: Request, session: SessionDep, who: SignedIn, query: Annotated[RowsQuery, Query()]
) -> Response:
    """The list with other filters, or its next lines; as data for the page's script."""
    shown = _list(session, who, query, most=query.most, after=query.after or None)
    found = shown["worklist"]
    return JSONResponse(
        {
            "tally": render(request, "worklist/tally.html", **shown),
            "title": worklist_words.title(found),
            "more": found.more,
            "matching": found.matching,
            "rows": _lines(request, shown),
            "empty": "" if found.rows or query.after else render(request, "worklist/none.html", **shown),
        }
    )


@router.get("/worklist/lines", name="worklist_lines")
def worklist_lines(
    request: Request, session: SessionDep, who: SignedIn, query: Annotated[LinesQuery, Query()]
) -> Response:
    """Those of the named lines that fit the filters: what a page asks for that was told of changes."""
    shown = _list(session, who, query, most=1)
    found = shown["worklist"]
    lines = worklist.lines_of(session, who, query.as_filter(), query.case_id)
    unread = consult.unread_of(session, who, query.case_id)
    shown |= {"worklist": found.model_copy(update={"rows": lines}), "unread": unread}
    return JSONResponse(
        {
            "tally": render(request, "worklist/tally.html", **shown),
            "title": worklist_words.title(found),
            "matching": found.matching,
            "rows": _lines(request, shown),
        }
    )


@router.get("/worklist/events", name="worklist_events")
def events(
    request: Request, runtime: RuntimeDep, _who: SignedIn, seconds: Annotated[float, Query(ge=0, le=LONGEST)] = LONGEST
) -> EventSourceResponse:
    """Which lines change, live, for so many seconds; the browser then asks again by itself."""
    token = request.cookies.get(SESSION_COOKIE, "")
    return EventSourceResponse(follow(runtime, token=token, seconds=seconds), ping=15)


@router.post("/worklist/assign", name="worklist_assign")
def assign(
    request: Request,
    session: SessionDep,
    who: SignedIn,
    case_id: CaseIds,
    to: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Give cases to a colleague, or to nobody (``to`` empty); each that could not be is named with its reason."""
    done = worklist.assign(session, who, case_id, to or None)
    return JSONResponse(done.model_dump()) if wants_json(request) else RedirectResponse("/worklist", status_code=303)


@router.post("/worklist/views", name="view_save")
def save_view(
    session: SessionDep,
    who: SignedIn,
    name: Annotated[str, Form(max_length=200)],
    filters: Annotated[str, Form(max_length=2000)] = "",
    default: Annotated[bool, Form()] = False,
) -> Response:
    """Keep what is shown under a name; ``filters`` is the page's own query."""
    view = saved_views.save(session, who, name=name, wanted=_filters(filters), default=default)
    return RedirectResponse(worklist_words.query_of(view.wanted, view=view.id), status_code=303)


@router.post("/worklist/views/{view_id}", name="view_update")
def update_view(
    session: SessionDep,
    who: SignedIn,
    view_id: str,
    name: Annotated[str | None, Form(max_length=200)] = None,
    filters: Annotated[str | None, Form(max_length=2000)] = None,
    default: Annotated[bool | None, Form()] = None,
) -> Response:
    """Give a view another name, other filters, or make it what the worklist opens with."""
    view = saved_views.update(
        session, who, view_id, name=name, wanted=None if filters is None else _filters(filters), default=default
    )
    return RedirectResponse(worklist_words.query_of(view.wanted, view=view.id), status_code=303)


@router.post("/worklist/views/{view_id}/delete", name="view_delete")
def delete_view(session: SessionDep, who: SignedIn, view_id: str) -> Response:
    """Forget a view."""
    saved_views.delete(session, who, view_id)
    return RedirectResponse("/worklist?state=open", status_code=303)


def _filters(query: str) -> WorklistFilter:
    fields = {key: values[-1] for key, values in parse_qs(query.removeprefix("?")).items()}
    try:
        return WorklistQuery.model_validate(fields).as_filter()
    except ValidationError:
        raise UsageError("The filters of this page are out of date; reload it and save the view again.") from None


def _list(
    session: Session, who: Principal, query: WorklistQuery, *, most: int, after: str | None = None
) -> dict[str, Any]:  # Any: what the templates of the list take
    wanted = query.as_filter()
    found = worklist.worklist(session, who, wanted, after=after, most=most)
    return {
        "worklist": found,
        "unread": consult.unread_of(session, who, [row.case_id for row in found.rows]),
        "questions": consult.waiting(session, who),
        "query": query,
        "wanted": wanted,
        "filtered": wanted != WorklistFilter(sort=wanted.sort, descending=wanted.descending),
        "columns": worklist_words.COLUMNS,
        "clock": worklist_words.clock,
    }


def _lines(request: Request, shown: dict[str, Any]) -> list[dict[str, Any]]:  # Any: as above
    return [
        {"id": row.case_id, "key": row.key, "html": render(request, "worklist/row.html", **shown, row=row)}
        for row in shown["worklist"].rows
    ]
