"""Signing in and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from portal.access import RULES, SignedIn
from portal.rendering import NAV, page
from portal.sessions import (
    SESSION_COOKIE,
    clear_session,
    login_token,
    login_token_matches,
    set_login_token,
    set_session,
)
from server.accounts import service as accounts
from server.deps import RuntimeDep
from shared.contracts.errors import UnauthenticatedError

router = APIRouter()


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
    return _form(request, back=next)


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
    """Check the password, open a session."""
    if not login_token_matches(request, csrf_token or csrf):
        return _form(
            request, back=next, username=username, error="The page was out of date. Sign in again.", status=403
        )
    with runtime.database.session() as session:
        try:
            user = accounts.authenticate(session, username, password)
        except UnauthenticatedError as error:
            # Caught inside the transaction: the count of failed attempts must be kept.
            refusal: str | None = error.message
        else:
            refusal = None
            token, _ = accounts.open_session(session, user.id)
    if refusal is not None:
        return _form(request, back=next, username=username, error=refusal, status=401)
    response = RedirectResponse(local_path(next), status_code=303)
    set_session(request, response, token)
    return response


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


def _form(request: Request, *, back: str, username: str = "", error: str = "", status: int = 200) -> Response:
    token = login_token(request)
    response = page(
        request, "login/form.html", status=status, back=back, username=username, error=error, login_token=token
    )
    set_login_token(request, response, token)
    return response
