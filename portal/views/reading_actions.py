"""What a reader does in the reading room."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from sqlmodel import Session
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import wants_json
from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.reviews import activity, looking, steps, undoing
from server.reviews import service as reviews
from server.reviews.drafts import MOST_BASES
from server.reviews.schemas import ChangeResult, Done, FlagDecisionInput, Readiness, SignInput
from server.runtime import Runtime
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass

router = APIRouter(route_class=CommittingRoute)
Key = Annotated[str, Form(min_length=8, max_length=100)]
DraftBases = Annotated[list[str] | None, Form(max_length=MOST_BASES)]
CellIds = Annotated[list[str], Form(min_length=1, max_length=2000)]


class Lease(BaseModel):
    """Until when the case is held."""

    lease_until: datetime


@router.post("/cases/{case_id}/claim", name="case_claim")
def claim(session: SessionDep, who: SignedIn, case_id: str, take_over: Annotated[bool, Form()] = False) -> Response:
    """Take the case for reading."""
    cases.claim(session, who, case_id, take_over=take_over)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.post("/cases/{case_id}/heartbeat", name="case_heartbeat")
def heartbeat(session: SessionDep, who: SignedIn, case_id: str) -> Lease:
    """Keep the case while the page is open."""
    return Lease(lease_until=cases.heartbeat_lease(session, who, case_id))


@router.post("/cases/{case_id}/release", name="case_release")
def release(session: SessionDep, who: SignedIn, case_id: str) -> Response:
    """Give the case back to the worklist."""
    cases.release(session, who, case_id)
    return RedirectResponse("/worklist", status_code=303)


@router.post("/cases/{case_id}/cells", name="case_cells")
def cells(
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    cell_id: CellIds,
    label: Annotated[CellClass, Form()],
    idempotency_key: Key,
) -> ChangeResult:
    """Give cells a class; the same key twice changes nothing the second time."""
    done = reviews.reclassify(session, who, case_id, cell_ids=cell_id, label=label, idempotency_key=idempotency_key)
    return _redrawn(session, runtime, who, case_id, done)


@router.post("/cases/{case_id}/undo", name="case_undo")
def undo(session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, idempotency_key: Key) -> ChangeResult:
    """Take this reader's last change back."""
    return _redrawn(session, runtime, who, case_id, undoing.undo(session, who, case_id, idempotency_key))


@router.post("/cases/{case_id}/redo", name="case_redo")
def redo(session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, idempotency_key: Key) -> ChangeResult:
    """Make the change again that this reader took back last."""
    return _redrawn(session, runtime, who, case_id, undoing.redo(session, who, case_id, idempotency_key))


@router.post("/cases/{case_id}/accept", name="case_accept")
def accept(
    session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, cell_id: CellIds, idempotency_key: Key
) -> ChangeResult:
    """Confirm cells as they are named."""
    done = reviews.accept(session, who, case_id, cell_ids=cell_id, idempotency_key=idempotency_key)
    return _redrawn(session, runtime, who, case_id, done)


@router.post("/cases/{case_id}/seen", name="case_seen")
def seen(
    session: SessionDep, who: SignedIn, case_id: str, group: Annotated[list[CellClass], Form(max_length=40)]
) -> Readiness:
    """Note which class groups were on the screen."""
    return looking.saw(session, who, case_id, group)


@router.post("/cases/{case_id}/activity", name="case_activity", status_code=204)
def was_active(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    keys: Annotated[int, Form(ge=0)] = 0,
    clicks: Annotated[int, Form(ge=0)] = 0,
) -> None:
    """Note that the reader is at work."""
    activity.was_active(session, who, case_id, keys=keys, clicks=clicks)


@router.post("/cases/{case_id}/impression", name="case_impression")
def impression(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    impression: Annotated[str, Form(max_length=20000)] = "",
    over: DraftBases = None,
) -> dict[str, bool]:
    """Keep the draft; `over`: the texts that it may have been written over."""
    reviews.save_impression(session, who, case_id, impression, over=over)
    return {"saved": True}


@router.post("/cases/{case_id}/sign", name="case_sign")
def sign(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    password: Annotated[str, Form()],
    case_version: Annotated[int, Form()],
    idempotency_key: Key,
    impression: Annotated[str, Form()] = "",
    flag: Annotated[list[str] | None, Form()] = None,
    shown: Annotated[list[str] | None, Form()] = None,
    dismissed: Annotated[list[str] | None, Form()] = None,
    reason: Annotated[list[str] | None, Form()] = None,
    opinion: Annotated[list[str] | None, Form()] = None,
    keys: Annotated[int, Form(ge=0)] = 0,
    clicks: Annotated[int, Form(ge=0)] = 0,
) -> Response:
    """Sign the case out. `flag`, `shown` (of the case's JSON) and `reason` run side by side; `dismissed` holds the ids
    of the dismissed flags, `opinion` those of the second opinions that stood on the page. The same key twice makes one
    report."""
    signing = SignInput(
        password=password,
        impression=impression,
        decisions=_decisions(flag or [], shown or [], dismissed or [], reason or []),
        case_version=case_version,
        opinions=opinion or [],
        idempotency_key=idempotency_key,
    )
    accounts.compare_ahead(session, runtime, who.user_id, password)
    activity.was_active(session, who, case_id, keys=keys, clicks=clicks)
    report_id = reviews.sign(session, who, runtime, case_id, signing)
    address = f"/reports/{report_id}"
    if wants_json(request):
        return JSONResponse({"report_id": report_id, "location": address})
    return RedirectResponse(address, status_code=303)


def _redrawn(session: Session, runtime: Runtime, who: Principal, case_id: str, done: Done) -> ChangeResult:
    """Keep an act, then read what the page must redraw: the next one writes already."""
    session.commit()
    with runtime.database.session(read_only=True) as reading:
        return steps.changed(reading, who, case_id, done)


def _decisions(flags: list[str], shown: list[str], dismissed: list[str], reasons: list[str]) -> list[FlagDecisionInput]:
    if not len(flags) == len(shown) == len(reasons):
        raise UsageError("Reload the page and sign again.")
    return [
        FlagDecisionInput(
            flag_id=flag, shown=seen, agreed=flag not in dismissed, reason=reason if flag in dismissed else ""
        )
        for flag, seen, reason in zip(flags, shown, reasons, strict=True)
    ]
