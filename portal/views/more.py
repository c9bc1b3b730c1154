"""Counting on: asking the hospital's node for further fields of a smear."""

from fastapi import APIRouter

from portal.access import SignedIn
from server.cases import supplements
from server.cases.schemas import MoreView
from server.deps import CommittingRoute, SessionDep

router = APIRouter(route_class=CommittingRoute)


@router.get("/cases/{case_id}/more", name="case_more")
def requests(session: SessionDep, who: SignedIn, case_id: str) -> list[MoreView]:
    """What was asked for, and what came."""
    return supplements.of_case(session, who, case_id)


@router.post("/cases/{case_id}/more", name="case_more_ask")
def ask(session: SessionDep, who: SignedIn, case_id: str) -> list[MoreView]:
    """Ask for 100 white cells more."""
    supplements.ask(session, who, case_id)
    return supplements.of_case(session, who, case_id)
