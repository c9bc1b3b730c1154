"""The audit: who did what to which subject, and whether its chains hold."""

from fastapi import APIRouter, Request
from sqlmodel import Session
from starlette.responses import Response

from portal.access import SignedIn
from portal.audit_words import Line, line
from portal.rendering import is_partial, page
from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.deps import SessionDep, VaultDep
from server.hospitals import service as hospitals

router = APIRouter()
LIMIT = 200


@router.get("/audit", name="audit")
def search(request: Request, session: SessionDep, who: SignedIn, subject: str = "", text: str = "") -> Response:
    """The newest entries that match."""
    entries = _lines(session, who, subject=subject.strip(), text=text.strip())
    template = "audit/entries.html" if is_partial(request) else "audit/page.html"
    return page(request, template, entries=entries, subject=subject, text=text, limit=LIMIT, check=None)


@router.get("/audit/check", name="audit_check")
def check(request: Request, session: SessionDep, vault: VaultDep, who: SignedIn) -> Response:
    """The newest entries, and what a walk along all chains found."""
    found = audit.verify(session, vault)
    return page(request, "audit/page.html", entries=_lines(session, who), subject="", text="", limit=LIMIT, check=found)


def _lines(session: Session, who: Principal, *, subject: str = "", text: str = "") -> list[Line]:
    names = {f"user:{user.id}": user.display_name for user in accounts.list_users(session, who)}
    for hospital in hospitals.list_hospitals(session, who):
        names[f"hospital:{hospital.id}"] = hospital.name
        names |= {f"node:{node.id}": f"{hospital.name}, node" for node in hospital.nodes}
    return [line(entry, names) for entry in audit.search(session, who, subject or None, text or None, LIMIT)]
