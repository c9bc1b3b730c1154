"""Asking a colleague about a case, and what goes on in a case while its page is open."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from pydantic import StringConstraints
from sse_starlette import EventSourceResponse

from portal.access import SignedIn
from portal.case_feed import LONGEST, follow
from portal.sessions import SESSION_COOKIE
from server.cases import service as cases
from server.consult import service as consult
from server.consult.schemas import About, Asked, ThreadView
from server.deps import CommittingRoute, RuntimeDep, SessionDep

router = APIRouter(route_class=CommittingRoute)
_PLAIN: Final = "^[!-~]+$"
"""An id or a key that a page has made: it goes into the database as it is."""
Text = Annotated[str, Form(min_length=1, max_length=4000)]
Person = Annotated[str, StringConstraints(pattern=_PLAIN)]
People = Annotated[list[Person], Form(max_length=20)]
Key = Annotated[str, Form(min_length=8, max_length=100, pattern=_PLAIN)]


@router.get("/cases/{case_id}/events", name="case_events")
def events(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    seconds: Annotated[float, Query(ge=0, le=LONGEST)] = LONGEST,
) -> EventSourceResponse:
    """What others do to the case, live: questions, more cells, another holder."""
    cases.visible_case(session, who, case_id)
    token = request.cookies.get(SESSION_COOKIE, "")
    return EventSourceResponse(follow(runtime, token=token, case_id=case_id, seconds=seconds), ping=15)


@router.get("/cases/{case_id}/consult", name="case_consult")
def threads(session: SessionDep, who: SignedIn, case_id: str) -> list[ThreadView]:
    """The case's questions, open ones first."""
    return consult.threads(session, who, case_id)


@router.post("/cases/{case_id}/consult", name="consult_ask")
def ask(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    text: Text,
    people: People,
    idempotency_key: Key,
    cell_id: Annotated[str | None, Form(max_length=100)] = None,
    field: Annotated[int | None, Form(ge=0, lt=2**31)] = None,
    box: Annotated[list[int] | None, Form(min_length=4, max_length=4)] = None,
) -> list[ThreadView]:
    """Put a question to colleagues, on a cell, a region of a field, or the whole case."""
    corners = None if box is None else (box[0], box[1], box[2], box[3])
    about = About(cell_id=cell_id or None, field=field, box=corners)
    consult.ask(session, who, case_id, about, Asked(text=text, people=people, key=idempotency_key))
    return consult.threads(session, who, case_id)


@router.post("/cases/{case_id}/consult/{thread_id}/messages", name="consult_reply")
def reply(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    thread_id: str,
    text: Text,
    idempotency_key: Key,
    people: Annotated[list[Person] | None, Form(max_length=20)] = None,
) -> list[ThreadView]:
    """Answer."""
    consult.reply(session, who, case_id, thread_id, Asked(text=text, people=people or [], key=idempotency_key))
    return consult.threads(session, who, case_id)


@router.post("/cases/{case_id}/consult/{thread_id}/state", name="consult_state")
def state(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    thread_id: str,
    resolved: Annotated[bool, Form()],
    idempotency_key: Key,
) -> list[ThreadView]:
    """Say that a question is answered, or open it again."""
    consult.resolve(session, who, case_id, thread_id, resolved=resolved, key=idempotency_key)
    return consult.threads(session, who, case_id)


@router.post("/cases/{case_id}/consult/seen", name="consult_seen")
def seen(session: SessionDep, who: SignedIn, case_id: str) -> dict[str, int]:
    """Note that the case's questions are on this person's screen."""
    consult.seen(session, who, case_id)
    return {"unread": 0}
