"""The session cookie, the login form's own token and the theme: all the cookies there are."""

import hmac
import secrets
from typing import Final

from fastapi import Request, Response

from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.accounts.sign_in import Client
from server.runtime import Runtime

SESSION_COOKIE: Final = "hv_session"
LOGIN_COOKIE: Final = "hv_login"
STEP_COOKIE: Final = "hv_step"
THEME_COOKIE: Final = "hv_theme"
THEMES: Final = ("auto", "light", "dark")


def is_https(request: Request) -> bool:
    """Whether people reach the portal over TLS, be it ended here or at a proxy in front."""
    public_url = str(getattr(request.app.state.runtime.settings, "public_url", "") or "")
    return request.url.scheme == "https" or (public_url.startswith("https://") and not _is_loopback(request))


def _is_loopback(request: Request) -> bool:
    return request.url.hostname in {"127.0.0.1", "localhost", "testserver"}


def principal_from_cookie(request: Request, runtime: Runtime, *, used: bool) -> Principal | None:
    """Return who is signed in, if anybody; ``used``: a person asked, which keeps the session from idling out."""
    token = request.cookies.get(SESSION_COOKIE)
    if not token:
        return None
    with runtime.database.session(read_only=True) as session:
        return accounts.principal_for(session, token, used=used)


def set_session(request: Request, response: Response, token: str) -> None:
    """Hand the browser its session; it ends with the browser, and on the server by its own clock."""
    response.set_cookie(SESSION_COOKIE, token, httponly=True, samesite="lax", secure=is_https(request), path="/")


def clear_session(response: Response) -> None:
    """Take the session cookie back."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")


def set_step(request: Request, response: Response, token: str) -> None:
    """Hand the browser what it needs between password and code: it opens nothing else."""
    response.set_cookie(
        STEP_COOKIE, token, httponly=True, samesite="strict", secure=is_https(request), path="/login", max_age=600
    )


def clear_step(response: Response) -> None:
    """Take it back."""
    response.delete_cookie(STEP_COOKIE, path="/login", httponly=True, samesite="strict")


def client_of(request: Request) -> Client:
    """Return where a request comes from; behind a proxy the server puts the client's address in its place."""
    return Client(
        address=request.client.host if request.client else "", user_agent=request.headers.get("user-agent", "")
    )


def login_token(request: Request) -> str:
    """Return the login form's token: the browser's, or a new one."""
    held = request.cookies.get(LOGIN_COOKIE, "")
    return held if len(held) >= 32 else secrets.token_urlsafe(32)


def set_login_token(request: Request, response: Response, token: str) -> None:
    """The cookie half of the login form's double submit."""
    response.set_cookie(
        LOGIN_COOKIE, token, httponly=True, samesite="strict", secure=is_https(request), path="/login", max_age=3600
    )


def login_token_matches(request: Request, sent: str) -> bool:
    """Whether form and cookie carry the same token."""
    held = request.cookies.get(LOGIN_COOKIE, "")
    return bool(held) and hmac.compare_digest(held.encode(), sent.encode())


def theme(request: Request) -> str:
    """Return the chosen theme; ``auto`` follows the system."""
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"
