"""Signing in, by password and second factor, and out."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from portal import qr
from portal.access import RULES, SignedIn
from portal.rendering import NAV, page
from portal.sessions import (
    SESSION_COOKIE,
    STEP_COOKIE,
    clear_session,
    clear_step,
    client_of,
    login_token,
    login_token_matches,
    set_login_token,
    set_session,
    set_step,
)
from server.accounts import service as accounts
from server.accounts import sign_in
from server.accounts.sign_in import Begun, Next, StepOverError
from server.accounts.throttle import TooManyAttemptsError
from server.deps import RuntimeDep
from shared.contracts.errors import HematovisionError, UnauthenticatedError, UsageError

router = APIRouter()
OUT_OF_DATE = "The page was out of date. Try again."
_STEPS = {Next.CODE: "/login/code", Next.SET_UP: "/login/second-factor"}


@router.get("/", name="home")
def home(who: SignedIn) -> Response:
    """Everybody starts at the first page of their menu that is their work."""
    first = next(href for name, href, _, _ in NAV if who.role in RULES[name])
    return RedirectResponse(first, status_code=303)


@router.get("/login", name="login_form")
def login_form(request: Request, next: str = "") -> Response:  # noqa: A002 - the query parameter's public name
    """The form; somebody who is signed in goes on at once."""
    if request.state.principal is not None:
        return RedirectResponse(local_path(next), status_code=303)
    return with_token(request, "login/form.html", back=next, username="")


@router.post("/login", name="login")
def login(
    request: Request,
    runtime: RuntimeDep,
    username: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    csrf_token: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",  # noqa: A002 - the form field's public name
) -> Response:
    """Check the password; open a session, or ask for the second factor."""
    if not login_token_matches(request, csrf_token or csrf):
        return with_token(
            request,
            "login/form.html",
            status=403,
            back=next,
            username=username,
            error="The page was out of date. Sign in again.",
        )
    try:
        with runtime.database.session() as session:
            sign_in.compare_ahead(session, runtime, username, password, client_of(request))
            begun = sign_in.begin(session, runtime, username, password, client_of(request))
    except (UnauthenticatedError, TooManyAttemptsError) as refused:
        return refuse(request, "login/form.html", refused, back=next, username=username)
    return onwards(request, begun, next)


@router.get("/login/code", name="login_code_form")
def code_form(request: Request, runtime: RuntimeDep, next: str = "") -> Response:  # noqa: A002 - as above
    """Ask for the code; whoever has no password behind them goes back to the start."""
    with runtime.database.session(read_only=True) as session:
        try:
            waits_for = sign_in.step(session, request.cookies.get(STEP_COOKIE, ""))
        except StepOverError:
            return _to_the_start(next)
    if waits_for is Next.SET_UP:
        return RedirectResponse(_STEPS[waits_for] + _query(next), status_code=303)
    return with_token(request, "login/code.html", back=next)


@router.post("/login/code", name="login_code")
def take_code(
    request: Request,
    runtime: RuntimeDep,
    code: Annotated[str, Form(max_length=100)],
    csrf_token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",  # noqa: A002 - as above
) -> Response:
    """Take the code, open the session."""
    if not login_token_matches(request, csrf_token):
        return with_token(request, "login/code.html", status=403, back=next, error=OUT_OF_DATE)
    token = request.cookies.get(STEP_COOKIE, "")
    try:
        with runtime.database.session() as session:
            if sign_in.step(session, token) is Next.SET_UP:
                return RedirectResponse(_STEPS[Next.SET_UP] + _query(next), status_code=303)
            done = sign_in.finish(session, runtime, token, code, client_of(request))
    except StepOverError:
        return _to_the_start(next)
    except (UnauthenticatedError, TooManyAttemptsError) as refused:
        return refuse(request, "login/code.html", refused, back=next)
    response = RedirectResponse(local_path(next), status_code=303)
    return _signed_in(request, response, done.token)


@router.get("/login/second-factor", name="login_set_up_form")
def set_up_form(request: Request, runtime: RuntimeDep, next: str = "") -> Response:  # noqa: A002 - as above
    """Show the code to scan to somebody whose role needs a second factor."""
    return _set_up(request, runtime, back=next)


@router.post("/login/second-factor", name="login_set_up")
def set_up(
    request: Request,
    runtime: RuntimeDep,
    code: Annotated[str, Form(max_length=100)],
    csrf_token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",  # noqa: A002 - as above
) -> Response:
    """Take the first code, open the session, and show the recovery codes this once."""
    if not login_token_matches(request, csrf_token):
        return _set_up(request, runtime, back=next, error=OUT_OF_DATE, status=403)
    token = request.cookies.get(STEP_COOKIE, "")
    try:
        with runtime.database.session() as session:
            if sign_in.step(session, token) is Next.CODE:
                return RedirectResponse(_STEPS[Next.CODE] + _query(next), status_code=303)
            done = sign_in.finish(session, runtime, token, code, client_of(request))
    except StepOverError:
        return _to_the_start(next)
    except (UsageError, UnauthenticatedError, TooManyAttemptsError) as refused:
        return _set_up(request, runtime, back=next, error=refused.message, status=refused.status)
    response = page(request, "login/codes.html", codes=done.codes, back=local_path(next))
    return _signed_in(request, response, done.token)


@router.post("/logout", name="logout")
def logout(request: Request, runtime: RuntimeDep, _who: SignedIn) -> Response:
    """End the session here and on the server."""
    with runtime.database.session() as session:
        accounts.close_session(session, request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/login", status_code=303)
    clear_session(response)
    return response


def local_path(target: str) -> str:
    """Return ``target`` if it is a path of this site, else the start page: no open redirect."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and "\\" not in target
    return target if plain and target.isprintable() else "/"


def onwards(request: Request, begun: Begun, back: str) -> Response:
    """Lead on after the first step: in, or to what is still to be done."""
    if begun.next is Next.NOTHING:
        return _signed_in(request, RedirectResponse(local_path(back), status_code=303), begun.token)
    response = RedirectResponse(_STEPS[begun.next] + _query(back), status_code=303)
    set_step(request, response, begun.token)
    return response


def with_token(request: Request, template: str, *, status: int = 200, error: str = "", **context: object) -> Response:
    """Render a page of somebody who is not signed in yet, with the token that its form sends back."""
    token = login_token(request)
    response = page(request, template, status=status, error=error, login_token=token, **context)
    set_login_token(request, response, token)
    return response


def refuse(request: Request, template: str, refused: HematovisionError, **context: object) -> Response:
    """Render the form again with what was wrong."""
    response = with_token(request, template, status=refused.status, error=refused.message, **context)
    if isinstance(refused, TooManyAttemptsError):
        response.headers["Retry-After"] = str(refused.retry_after)
    return response


def _set_up(request: Request, runtime: RuntimeDep, *, back: str, error: str = "", status: int = 200) -> Response:
    token = request.cookies.get(STEP_COOKIE, "")
    with runtime.database.session(read_only=True) as session:
        try:
            if sign_in.step(session, token) is Next.CODE:
                return RedirectResponse(_STEPS[Next.CODE] + _query(back), status_code=303)
            told = sign_in.enrolment(session, runtime, token)
        except StepOverError:
            return _to_the_start(back)
    return with_token(
        request, "login/second_factor.html", status=status, error=error, back=back, told=told, drawn=qr.svg(told.uri)
    )


def _signed_in(request: Request, response: Response, token: str) -> Response:
    clear_step(response)
    set_session(request, response, token)
    return response


def _to_the_start(back: str) -> Response:
    return RedirectResponse("/login" + _query(back), status_code=303)


def _query(back: str) -> str:
    return f"?{urlencode({'next': back})}" if local_path(back) != "/" else ""
