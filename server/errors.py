"""The one place where the node API turns an error into an answer: ``{"code", "message"}`` and a status."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from shared.contracts.errors import HematovisionError

log = structlog.get_logger(__name__)
_HTTP_CODES = {404: ("not_found", "There is nothing at this address; update the node's software.")}


def register(app: FastAPI) -> None:
    """Attach the handlers."""
    app.add_exception_handler(HematovisionError, _business)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(Exception, _unexpected)


def _answer(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status_code=status)


async def _business(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HematovisionError):
        raise error
    return _answer(error.status, error.code, error.message)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    # Names of fields only: a value could be anything.
    fields = sorted({".".join(str(part) for part in problem["loc"]) for problem in error.errors()})
    return _answer(422, "data_invalid", f"The request does not fit the contract ({', '.join(fields)[:300]}).")


async def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code, message = _HTTP_CODES.get(error.status_code, ("error", "The request cannot be answered as it was sent."))
    return _answer(error.status_code, code, message)


async def _database(request: Request, error: Exception) -> JSONResponse:
    log.warning("api.database_unavailable", path=request.url.path, kind=type(error).__name__)
    return _answer(503, "service_unavailable", "The centre's database is busy; try again in a moment.")


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("api.unexpected_error", path=request.url.path, exc_info=error)
    return _answer(500, "error", "Something broke at the centre; try again, and tell the centre if it stays.")
