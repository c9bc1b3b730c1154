"""The audit: who did what to which subject, and whether its chains hold."""

import csv
import io
import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, field_validator
from sqlmodel import Session
from starlette.responses import Response

from portal.access import SignedIn
from portal.audit_words import ACTIONS, line, plain_action
from portal.rendering import is_partial, page
from server.accounts import people
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.audit.schemas import AuditQuery, AuditVerification
from server.deps import CommittingRoute, SessionDep, VaultDep, WritingSessionDep
from server.hospitals import service as hospitals

router = APIRouter(route_class=CommittingRoute)
PAGE_ROWS: Final = 100
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class AuditForm(BaseModel):
    """The search form; an empty field does not limit. Days are whole, in UTC."""

    text: str = ""
    actor: str = ""
    action: str = ""
    subject: str = ""
    since: date | None = None
    until: date | None = None
    before: int | None = None

    @field_validator("since", "until", "before", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def limits(self) -> dict[str, str]:
        """What is filled in, as an address carries it; the page is not part of it."""
        return {name: str(value) for name, value in self.model_dump(exclude={"before"}).items() if value}

    def as_query(self) -> AuditQuery:
        """Return what the service understands."""
        return AuditQuery(
            **{name: getattr(self, name).strip()[:200] for name in ("text", "actor", "action", "subject")},
            since=_midnight(self.since),
            until=_midnight(self.until + timedelta(days=1)) if self.until else None,
            before=self.before,
        )


@router.get("/audit", name="audit")
def search(request: Request, session: SessionDep, who: SignedIn, form: Annotated[AuditForm, Query()]) -> Response:
    """The newest entries that match, a page of them."""
    template = "audit/entries.html" if is_partial(request) else "audit/page.html"
    return page(request, template, **_context(session, who, form))


@router.get("/audit/check", name="audit_check")
def check(request: Request, session: SessionDep, vault: VaultDep, who: SignedIn) -> Response:
    """The newest entries, and what a walk along all chains found."""
    found = audit.verify(session, vault)
    return page(request, "audit/page.html", **_context(session, who, AuditForm(), found))


@router.get("/audit.csv", name="audit_csv")
def export(session: WritingSessionDep, who: SignedIn, form: Annotated[AuditForm, Query()]) -> Response:
    """All entries that match, newest first, as a file; that they were taken is audited too."""
    found = audit.export(session, who, form.as_query(), wanted=form.limits)
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(["at", "actor", "name", "action", "subject", "number", "details"])
    for entry in found:
        details = json.dumps(entry.data, ensure_ascii=False, sort_keys=True) if entry.data else ""
        row = (entry.at.isoformat(), entry.actor, entry.actor_name, entry.action, entry.subject, entry.seq, details)
        lines.writerow([_plain(str(value)) for value in row])
    # A mark at the start, without which spreadsheets take UTF-8 for something else.
    headers = {"Content-Disposition": f'attachment; filename="audit-{datetime.now(UTC):%Y%m%d-%H%M}.csv"'}
    return Response("\ufeff" + out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _plain(value: str) -> str:
    """Return a value that no spreadsheet takes for a formula: names are people's own words."""
    return f"'{value}" if value.startswith(FORMULA) else value


def _context(
    session: Session, who: Principal, form: AuditForm, check: AuditVerification | None = None
) -> dict[str, Any]:  # Any: a template's variables
    found = audit.look(session, who, form.as_query(), limit=PAGE_ROWS)
    names = {f"user:{user.id}": user.display_name for user in people.list_users(session, who)}
    for hospital in hospitals.list_hospitals(session, who):
        names[f"hospital:{hospital.id}"] = hospital.name
        names |= {f"node:{node.id}": f"{hospital.name}, node" for node in hospital.nodes}
    known = dict.fromkeys([*ACTIONS, *audit.actions(session, who)])
    return {
        "entries": [line(entry, names) for entry in found.entries],
        "form": form,
        "limited": bool(form.limits),
        "limits": urlencode(form.limits),
        "older": urlencode({**form.limits, "before": found.older}) if found.older is not None else "",
        "newest": urlencode(form.limits) if form.before is not None else None,
        "actions": sorted(((action, plain_action(action)) for action in known), key=lambda pair: pair[1]),
        "check": check,
    }


def _midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time(), UTC) if day else None
