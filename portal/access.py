"""Which role may use which page: one table, and the one dependency that enforces it.

A route without a line here is refused. The services check again, by tenant and by state.
"""

import hmac
from typing import Annotated, Final

from fastapi import Depends, Request

from portal.sessions import principal_from_cookie
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.deps import RuntimeDep
from shared.contracts.errors import ForbiddenError, UnauthenticatedError

PUBLIC: Final = frozenset[Role]()
EVERYBODY: Final = frozenset(Role)
READERS: Final = frozenset({Role.HEMATOLOGIST})
CASE_VIEWERS: Final = frozenset({Role.HEMATOLOGIST, Role.ADMIN})
REPORT_VIEWERS: Final = frozenset({Role.HEMATOLOGIST, Role.ADMIN, Role.AUDITOR, Role.HOSPITAL_IT})
STEERING: Final = frozenset({Role.COORDINATOR, Role.ADMIN})
NETWORK: Final = frozenset({Role.COORDINATOR, Role.ADMIN, Role.HOSPITAL_IT, Role.AUDITOR})
ANALYSTS: Final = frozenset({Role.HEMATOLOGIST, Role.COORDINATOR, Role.ADMIN})
OVERSIGHT: Final = frozenset({Role.ADMIN, Role.AUDITOR})

RULES: Final[dict[str, frozenset[Role]]] = {
    "healthz": PUBLIC,
    "login_form": PUBLIC,
    "login": PUBLIC,
    "login_code_form": PUBLIC,
    "login_code": PUBLIC,
    "login_set_up_form": PUBLIC,
    "login_set_up": PUBLIC,
    "invitation": PUBLIC,
    "invitation_accept": PUBLIC,
    "logout": EVERYBODY,
    "home": EVERYBODY,
    "account": EVERYBODY,
    "account_notices": EVERYBODY,
    "account_password": EVERYBODY,
    "second_factor_begin": EVERYBODY,
    "second_factor_form": EVERYBODY,
    "second_factor_confirm": EVERYBODY,
    "second_factor_off": EVERYBODY,
    "recovery_codes": EVERYBODY,
    "session_end": EVERYBODY,
    "sessions_end_others": EVERYBODY,
    "worklist": CASE_VIEWERS,
    "worklist_rows": CASE_VIEWERS,
    "worklist_lines": CASE_VIEWERS,
    "worklist_events": CASE_VIEWERS,
    "worklist_assign": READERS,
    "view_save": CASE_VIEWERS,
    "view_update": CASE_VIEWERS,
    "view_delete": CASE_VIEWERS,
    "case": CASE_VIEWERS,
    "case_json": CASE_VIEWERS,
    "case_history": CASE_VIEWERS,
    "case_blob": CASE_VIEWERS,
    "case_images": CASE_VIEWERS,
    "case_claim": READERS,
    "case_heartbeat": READERS,
    "case_release": READERS,
    "case_cells": READERS,
    "case_undo": READERS,
    "case_redo": READERS,
    "case_accept": READERS,
    "case_seen": READERS,
    "case_cell_add": READERS,
    "case_cell_split": READERS,
    "case_cell_merge": READERS,
    "case_tile": CASE_VIEWERS,
    "case_compare": CASE_VIEWERS,
    "blind_cells": READERS,
    "blind_undo": READERS,
    "blind_redo": READERS,
    "blind_draft": READERS,
    "blind_save": READERS,
    "blind_take": READERS,
    "opinion_ask": READERS,
    "opinion_withdraw": READERS,
    "opinion": CASE_VIEWERS,
    "case_activity": READERS,
    "case_events": CASE_VIEWERS,
    "case_consult": CASE_VIEWERS,
    "case_more": CASE_VIEWERS,
    "case_more_ask": READERS,
    "consult_ask": READERS,
    "consult_reply": READERS,
    "consult_state": READERS,
    "consult_seen": READERS,
    "case_impression": READERS,
    "case_sign": READERS,
    "case_findings": CASE_VIEWERS,
    "case_finding": READERS,
    "case_finding_undo": READERS,
    "case_glass": READERS,
    "case_amend": READERS,
    "case_amend_leave": READERS,
    "phrase_keep": READERS,
    "phrase_remove": READERS,
    "reports": REPORT_VIEWERS,
    "reports_json": REPORT_VIEWERS,
    "report": REPORT_VIEWERS,
    "report_pdf": REPORT_VIEWERS,
    "insights": ANALYSTS,
    "insights_json": ANALYSTS,
    "rounds": NETWORK,
    "round_start": STEERING,
    "round": NETWORK,
    "round_json": NETWORK,
    "round_events": NETWORK,
    "round_stop": STEERING,
    "round_pause": STEERING,
    "round_resume": STEERING,
    "schedule_add": STEERING,
    "schedule_remove": STEERING,
    "dry_run_start": STEERING,
    "dry_run": NETWORK,
    "dry_run_json": NETWORK,
    "models": EVERYBODY,
    "model": EVERYBODY,
    "model_json": EVERYBODY,
    "model_promote": STEERING,
    "model_rollback": STEERING,
    "hospital_tolerance": STEERING | {Role.HOSPITAL_IT},
    "hospital_contact": STEERING | {Role.HOSPITAL_IT},
    "hospital_limits": STEERING | {Role.HOSPITAL_IT},
    "hospital_targets": STEERING | {Role.HOSPITAL_IT},
    "hospital_references": frozenset({Role.ADMIN, Role.HOSPITAL_IT}),
    "nodes": NETWORK,
    "nodes_json": NETWORK,
    "node": NETWORK,
    "node_approve": STEERING,
    "node_reject": STEERING,
    "node_revoke": STEERING,
    "kit_make": STEERING,
    "people": STEERING,
    "person_add": STEERING,
    "invite": STEERING,
    "invite_revoke": STEERING,
    "person": STEERING,
    "person_change": frozenset({Role.ADMIN}),
    "person_active": STEERING,
    "person_sessions_end": STEERING,
    "person_second_factor_reset": STEERING,
    "audit": OVERSIGHT,
    "audit_check": OVERSIGHT,
    "audit_csv": OVERSIGHT,
    "turnaround": NETWORK,
    "turnaround_json": NETWORK,
}


UNASKED: Final = frozenset(
    {
        "case_heartbeat",
        "case_events",
        "case_json",
        "case_consult",
        "case_findings",
        "case_more",
        "case_seen",
        "consult_seen",
        "worklist_events",
        "worklist_lines",
        "round_events",
    }
)
"""What a page asks for by itself: no use of the session, which must live for it all the same.

Where a page asks by itself for what people ask for too, its script says so: `UNASKED_HEADER`. What is seen counts by
the keys, clicks and movements that bring it on the screen (`case_activity`).
"""
UNASKED_HEADER: Final = "X-Unasked"


def allowed(route: str, principal: Principal | None) -> bool:
    """Whether ``principal`` may use the named route."""
    rule = RULES.get(route)
    if rule is None:
        return False
    return rule == PUBLIC or (principal is not None and principal.role in rule)


def _principal(request: Request, runtime: RuntimeDep) -> Principal | None:
    unasked = request.scope["route"].name in UNASKED or UNASKED_HEADER in request.headers
    return principal_from_cookie(request, runtime, used=not unasked)


async def authorise(request: Request, principal: Annotated[Principal | None, Depends(_principal)]) -> Principal | None:
    """Refuse whoever may not use this route, and every post without this session's token."""
    route = request.scope["route"].name
    rule = RULES.get(route)
    request.state.principal = principal
    if rule is None:
        raise ForbiddenError("This page has no access rule. Tell your administrator.")
    if rule == PUBLIC:
        return principal
    if principal is None:
        raise UnauthenticatedError("Your session has ended. Sign in again.")
    if principal.role not in rule:
        raise ForbiddenError(f"This page is not for the role {principal.role.label}. Choose a page from the menu.")
    if request.method == "POST":
        await _check_token(request, principal)
    return principal


async def _check_token(request: Request, principal: Principal) -> None:
    sent = request.headers.get("X-CSRF-Token")
    if sent is None:
        sent = str((await request.form()).get("csrf_token", ""))
    if not principal.csrf_token or not hmac.compare_digest(sent.encode(), principal.csrf_token.encode()):
        raise ForbiddenError("The form was out of date. Go back, reload the page and send it again.")


async def _signed_in(principal: Annotated[Principal | None, Depends(authorise)]) -> Principal:
    if principal is None:
        raise UnauthenticatedError("Sign in first.")
    return principal


SignedIn = Annotated[Principal, Depends(_signed_in)]
