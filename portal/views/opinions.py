"""Blind readings: a first impression without the AI, a second opinion without the first."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page, wants_json
from portal.views.reading_actions import CellIds, DraftBases, Key
from server.deps import CommittingRoute, SessionDep
from server.reviews import opinions, second_opinions
from server.reviews.schemas import ChangeResult
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass

router = APIRouter(route_class=CommittingRoute)
OpinionText = Annotated[str, Form(max_length=20000)]
EstimateClass = Annotated[list[CellClass] | None, Form()]
EstimatePercent = Annotated[list[str] | None, Form()]


class Kept(BaseModel):
    """What came of a draft."""

    saved: bool = True


@router.post("/cases/{case_id}/blind/cells", name="blind_cells")
def classify(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    cell_id: CellIds,
    idempotency_key: Key,
    label: Annotated[CellClass | None, Form()] = None,
) -> ChangeResult:
    """Classify cells in one's blind reading; without a label: as the AI names them, where it is shown."""
    return opinions.classify(session, who, case_id, cell_ids=cell_id, label=label, idempotency_key=idempotency_key)


@router.post("/cases/{case_id}/blind/undo", name="blind_undo")
def undo(session: SessionDep, who: SignedIn, case_id: str, idempotency_key: Key) -> ChangeResult:
    """Take the last act of one's blind reading back."""
    return opinions.undo(session, who, case_id, idempotency_key)


@router.post("/cases/{case_id}/blind/redo", name="blind_redo")
def redo(session: SessionDep, who: SignedIn, case_id: str, idempotency_key: Key) -> ChangeResult:
    """Make it again."""
    return opinions.redo(session, who, case_id, idempotency_key)


@router.post("/cases/{case_id}/blind/draft", name="blind_draft")
def draft(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    text: OpinionText = "",
    estimated: EstimateClass = None,
    percent: EstimatePercent = None,
    over: DraftBases = None,
) -> Kept:
    """Keep text and estimate; `over`: the texts that this one may have been written over."""
    opinions.keep_draft(session, who, case_id, text=text, estimate=_estimate(estimated, percent), over=over)
    return Kept()


@router.post("/cases/{case_id}/blind/save", name="blind_save")
def save(
    request: Request,
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    text: OpinionText = "",
    estimated: EstimateClass = None,
    percent: EstimatePercent = None,
) -> Response:
    """Save the blind reading for good; what was hidden is shown."""
    opinion_id = opinions.save(session, who, case_id, text=text, estimate=_estimate(estimated, percent))
    address = f"/cases/{case_id}/opinions/{opinion_id}" if opinion_id else f"/cases/{case_id}"
    return JSONResponse({"location": address}) if wants_json(request) else RedirectResponse(address, status_code=303)


@router.post("/cases/{case_id}/blind/take", name="blind_take")
def take(session: SessionDep, who: SignedIn, case_id: str) -> Response:
    """Take on an opinion that is asked of anyone."""
    second_opinions.take(session, who, case_id)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.post("/cases/{case_id}/opinions", name="opinion_ask")
def ask(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    of: Annotated[str, Form(max_length=64)] = "",
    question: Annotated[str, Form(max_length=2000)] = "",
    hides_ai: Annotated[bool, Form()] = False,
) -> Response:
    """Ask a colleague, or anyone, for a second opinion."""
    second_opinions.ask(session, who, case_id, of=of or None, question=question, hides_ai=hides_ai)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.post("/cases/{case_id}/opinions/{opinion_id}/withdraw", name="opinion_withdraw")
def withdraw(session: SessionDep, who: SignedIn, case_id: str, opinion_id: str) -> Response:
    """Take a request back that nobody has answered."""
    second_opinions.withdraw(session, who, case_id, opinion_id)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.get("/cases/{case_id}/opinions/{opinion_id}", name="opinion")
def compared(request: Request, session: SessionDep, who: SignedIn, case_id: str, opinion_id: str) -> Response:
    """Two readings side by side."""
    both = second_opinions.compared(session, who, case_id, opinion_id)
    return page(request, "opinions/compared.html", case_id=case_id, both=both, opinion=both.opinion)


def _estimate(classes: list[CellClass] | None, percents: list[str] | None) -> dict[CellClass, float]:
    """Return class → percent from the form's fields, which run side by side; an empty one says nothing."""
    classes, percents = classes or [], percents or []
    if len(classes) != len(percents):
        raise UsageError("Reload the page and estimate again.")
    given = {cls: text.strip().replace(",", ".") for cls, text in zip(classes, percents, strict=True)}
    try:
        return {cls: float(text) for cls, text in given.items() if text}
    except ValueError:
        raise UsageError("Give estimated percentages as numbers, or leave them empty.") from None
