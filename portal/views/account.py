"""One's own account: password, second factor, sessions."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from sqlmodel import Session
from starlette.responses import RedirectResponse, Response

from portal import qr
from portal.access import SignedIn
from portal.rendering import page
from server.accounts import second_factor, sessions
from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.runtime import Runtime
from shared.contracts.errors import UsageError

router = APIRouter(route_class=CommittingRoute)
PATH: Final = "/account"
Password = Annotated[str, Form(max_length=1000)]
SAID: Final = {
    "password": "The password is changed; you are signed out everywhere else.",
    "notices": "Kept: what letters you get.",
    "session": "The session has ended.",
    "sessions": "All other sessions have ended.",
    "off": "The second factor is off.",
}


@router.get("/account", name="account")
def account(request: Request, session: SessionDep, runtime: RuntimeDep, who: SignedIn, done: str = "") -> Response:
    """How the account stands; ``done``: what was done just now."""
    return _page(request, session, runtime, who, said=SAID.get(done, ""))


@router.post("/account/password", name="account_password")
def change_password(session: SessionDep, who: SignedIn, old: Password, new: Password, again: Password) -> Response:
    """Change the password."""
    if new != again:
        raise UsageError("The two new passwords differ; try again.")
    accounts.change_password(session, who, old=old, new=new)
    return RedirectResponse(f"{PATH}?done=password", status_code=303)


@router.post("/account/notices", name="account_notices")
def set_notices(
    session: SessionDep,
    who: SignedIn,
    email: Annotated[str, Form(max_length=250)] = "",
    wanted: Annotated[bool, Form()] = False,
) -> Response:
    """Keep where letters go, and whether any are wanted."""
    accounts.set_notices(session, who, email=email, wanted=wanted)
    return RedirectResponse(f"{PATH}?done=notices", status_code=303)


@router.post("/account/second-factor", name="second_factor_begin")
def begin(session: SessionDep, runtime: RuntimeDep, who: SignedIn, password: Password) -> Response:
    """Make the secret that the app is told."""
    second_factor.begin(session, runtime, who, password)
    return RedirectResponse(f"{PATH}/second-factor", status_code=303)


@router.get("/account/second-factor", name="second_factor_form")
def scan(request: Request, session: SessionDep, runtime: RuntimeDep, who: SignedIn) -> Response:
    """Show the code to scan while the first code is awaited."""
    told = second_factor.own_waiting(session, runtime, who)
    return page(request, "account/second_factor.html", told=told, drawn=qr.svg(told.uri), error="")


@router.post("/account/second-factor/confirm", name="second_factor_confirm")
def confirm(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    code: Annotated[str, Form(max_length=100)],
) -> Response:
    """Put it in force and show the recovery codes this once."""
    try:
        codes = second_factor.confirm_own(session, runtime, who, code)
    except UsageError as wrong:
        told = second_factor.own_waiting(session, runtime, who)
        drawn = qr.svg(told.uri)
        return page(request, "account/second_factor.html", status=400, told=told, drawn=drawn, error=wrong.message)
    return page(request, "account/codes.html", codes=codes)


@router.post("/account/second-factor/off", name="second_factor_off")
def turn_off(session: SessionDep, runtime: RuntimeDep, who: SignedIn, password: Password) -> Response:
    """Sign in by password alone from now on."""
    second_factor.turn_off(session, runtime, who, password)
    return RedirectResponse(f"{PATH}?done=off", status_code=303)


@router.post("/account/recovery-codes", name="recovery_codes")
def renew_codes(
    request: Request, session: SessionDep, runtime: RuntimeDep, who: SignedIn, password: Password
) -> Response:
    """Make new recovery codes and show them this once."""
    try:
        codes = second_factor.renew_codes(session, who, password)
    except accounts.PasswordRefusedError as refused:
        return _page(request, session, runtime, who, error=refused.message, status=refused.status)
    return page(request, "account/codes.html", codes=codes)


@router.post("/account/sessions/end-others", name="sessions_end_others")
def end_others(session: SessionDep, who: SignedIn) -> Response:
    """End all sessions but this one."""
    sessions.end_others(session, who)
    return RedirectResponse(f"{PATH}?done=sessions", status_code=303)


@router.post("/account/sessions/{session_id}/end", name="session_end")
def end_session(session: SessionDep, who: SignedIn, session_id: str) -> Response:
    """End one of one's sessions."""
    sessions.end_own(session, who, session_id)
    return RedirectResponse(f"{PATH}?done=session", status_code=303)


def _page(
    request: Request,
    session: Session,
    runtime: Runtime,
    who: Principal,
    *,
    said: str = "",
    error: str = "",
    status: int = 200,
) -> Response:
    return page(
        request,
        "account/page.html",
        status=status,
        factor=second_factor.view(session, runtime, who),
        sessions=sessions.own(session, who),
        notices=accounts.notices(session, who),
        mail=runtime.mail.on,
        said=said,
        error=error,
    )
