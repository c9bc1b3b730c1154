"""Findings beside the differential, phrases for their text, and asking for the glass slide."""

import json
from itertools import groupby
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from pydantic import JsonValue
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import wants_json
from portal.views.reading_actions import Key
from server.accounts import service as accounts
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.reviews import amending, findings, glass, phrases
from server.reviews.schemas import FindingsView, GlassInput, PhraseView
from server.settings import ServerSettings
from shared.contracts.errors import DataInvalidError
from shared.contracts.findings import Adequacy, Part, Presence, Scale, Species, Stage, Term
from shared.contracts.report import GlassReason, ReportStatus

router = APIRouter(route_class=CommittingRoute)
ASSUMED_WHITE_CELLS: Final = 8.0
"""10⁹/l, where a patient's own count is not known: the convention for parasites beside white cells."""


@router.get("/cases/{case_id}/findings", name="case_findings")
def case_findings(session: SessionDep, who: SignedIn, case_id: str) -> FindingsView:
    """What stands, for the page's script."""
    return findings.view(session, who, case_id)


@router.post("/cases/{case_id}/findings", name="case_finding")
def record(
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    item: Annotated[str, Form(max_length=60)],
    idempotency_key: Key,
    value: Annotated[str, Form(max_length=8000)] = "",
) -> FindingsView:
    """Give an item a value (JSON; empty clears it); the same key twice changes nothing the second time."""
    few = runtime.settings.terms_graded_few
    return findings.record(
        session, who, case_id, item=item, value=_value(value), idempotency_key=idempotency_key, few=few
    )


@router.post("/cases/{case_id}/findings/undo", name="case_finding_undo")
def undo(session: SessionDep, who: SignedIn, case_id: str, idempotency_key: Key) -> FindingsView:
    """Take this reader's last entry back."""
    return findings.undo(session, who, case_id, idempotency_key)


@router.post("/cases/{case_id}/glass", name="case_glass")
def ask_for_glass(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    password: Annotated[str, Form()],
    case_version: Annotated[int, Form()],
    reason: Annotated[GlassReason, Form()],
    idempotency_key: Key,
    note: Annotated[str, Form(max_length=2000)] = "",
    opinion: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Sign that the smear cannot be read, and ask for the glass slide; the same key twice makes one letter."""
    asked = GlassInput(
        password=password,
        reason=reason,
        note=note,
        case_version=case_version,
        opinions=opinion or [],
        idempotency_key=idempotency_key,
    )
    accounts.compare_ahead(session, runtime, who.user_id, password)
    address = f"/reports/{glass.ask(session, who, runtime, case_id, asked)}"
    if wants_json(request):
        return JSONResponse({"location": address})
    return RedirectResponse(address, status_code=303)


@router.post("/cases/{case_id}/amend", name="case_amend")
def amend(
    session: SessionDep,
    who: SignedIn,
    case_id: str,
    kind: Annotated[ReportStatus, Form()],
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Take a signed case back into review, for a new version of its report."""
    amending.begin(session, who, case_id, kind=kind, reason=reason)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.post("/cases/{case_id}/amend/leave", name="case_amend_leave")
def leave_amending(session: SessionDep, who: SignedIn, case_id: str) -> Response:
    """Leave the report as it stood; nothing may have been changed yet."""
    amending.leave(session, who, case_id)
    return RedirectResponse(f"/cases/{case_id}", status_code=303)


@router.post("/phrases", name="phrase_keep")
def keep_phrase(
    session: SessionDep,
    who: SignedIn,
    place: Annotated[str, Form(max_length=40)],
    text: Annotated[str, Form(max_length=4000)],
) -> PhraseView:
    """Keep a phrase."""
    return phrases.keep(session, who, place, text)


@router.post("/phrases/{phrase_id}/remove", name="phrase_remove")
def remove_phrase(session: SessionDep, who: SignedIn, phrase_id: str) -> dict[str, bool]:
    """Forget a phrase."""
    phrases.remove(session, who, phrase_id)
    return {"removed": True}


def _value(text: str) -> JsonValue:
    if not text:
        return None
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        raise DataInvalidError("The entry could not be read. Reload the page and set it again.") from None
    return value


def forms(settings: ServerSettings) -> dict[str, Any]:  # Any: each template part has its own shape
    """Return what the panels offer: terms by part and heading, and the choices of the forms."""
    few = settings.terms_graded_few
    return {
        "parts": list(Part),
        "headings": {
            part: [
                (heading, [(term, _grades(term, few=term in few)) for term in terms])
                for heading, terms in groupby((term for term in Term if term.info.part is part), _heading)
            ]
            for part in Part
        },
        "adequacy": list(Adequacy),
        "presence": list(Presence),
        "species": list(Species),
        "stages": list(Stage),
        "factor": settings.platelet_factor,
        "assumed": ASSUMED_WHITE_CELLS,
        "glass_reasons": list(GlassReason),
    }


def _heading(term: Term) -> str:
    return term.info.heading


def _grades(term: Term, *, few: bool) -> list[tuple[int, str, bool]]:
    """Return grade, words, and whether the site uses it."""
    scale = term.info.scale
    return [(grade, words, grade != 1 or few or scale is Scale.PRESENCE) for grade, words in enumerate(scale.words)]
