"""The audit: who did what to which subject."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from portal.access import SignedIn
from portal.rendering import is_partial, page
from server.audit import service as audit
from server.deps import SessionDep

router = APIRouter()
LIMIT = 200


@router.get("/audit", name="audit")
def search(request: Request, session: SessionDep, who: SignedIn, subject: str = "", text: str = "") -> Response:
    """The newest entries that match."""
    entries = audit.search(session, who, subject.strip() or None, text.strip() or None, LIMIT)
    template = "audit/entries.html" if is_partial(request) else "audit/page.html"
    return page(request, template, entries=entries, subject=subject, text=text, limit=LIMIT)
