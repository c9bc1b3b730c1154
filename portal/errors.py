"""How a person or a script sees that something went wrong; the one place that renders errors."""

from typing import Final
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal.rendering import is_partial, page, wants_json
from portal.security import HEADERS
from shared.contracts.errors import HematovisionError, UnauthenticatedError

log = structlog.get_logger(__name__)

TITLES: Final = {
    400: "That cannot be done",
    401: "Sign in first",
    403: "Not for this account",
    404: "There is nothing here",
    405: "There is nothing here",
    409: "Somebody or something was faster",
    422: "Something is missing",
    429: "Too many attempts",
    500: "Something broke on our side",
    503: "A part of the platform does not answer",
}


def register(app: FastAPI) -> None:
    """Attach the handlers."""
    app.add_exception_handler(HematovisionError, _business_error)
    app.add_exception_handler(RequestValidationError, _invalid_form)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _answer(request: Request, status: int, code: str, message: str) -> Response:
    if wants_json(request):
        return JSONResponse({"code": code, "message": message}, status_code=status)
    title = TITLES.get(status, TITLES[400])
    return page(request, "error.html", status=status, title=title, message=message, code=code)


async def _business_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HematovisionError):
        raise error
    if isinstance(error, UnauthenticatedError) and is_partial(request):
        return Response(status_code=401)  # `parts.js` then loads the page anew, which asks to sign in
    if isinstance(error, UnauthenticatedError) and not wants_json(request):
        back = request.url.path if request.method == "GET" else ""
        return RedirectResponse(f"/login?next={quote(back)}" if back not in {"", "/"} else "/login", status_code=303)
    return _answer(request, error.status, error.code, error.message)


async def _invalid_form(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = sorted({str(problem["loc"][-1]).replace("_", " ") for problem in error.errors()})
    return _answer(request, 422, "invalid", f"Go back and check: {', '.join(fields)}.")


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = "The address leads nowhere. Start again from the menu." if status in {404, 405} else "Try again."
    return _answer(request, status, "not_found" if status in {404, 405} else "http", message)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("portal.unexpected_error", path=request.url.path, kind=type(error).__name__, exc_info=error)
    answer = _answer(
        request, 500, "unexpected", "Nothing was changed. Try again; if it stays so, tell your administrator."
    )
    # The framework answers this one outside all middleware.
    for name, value in {**HEADERS, "Cache-Control": "no-store"}.items():
        answer.headers[name] = value
    return answer
