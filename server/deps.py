"""What endpoints and views ask for by annotation."""

import inspect
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlmodel import Session

from server.runtime import Runtime
from server.vault.port import Vault


# Those that wait for nothing are coroutines: a plain function would be sent to another thread and back.
async def get_runtime(connection: HTTPConnection) -> Runtime:
    """Return the runtime of the application that answers."""
    runtime: Runtime = connection.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


# Their ends have nothing left to wait for: `CommittingRoute` has committed by then.
async def get_session(request: Request, runtime: RuntimeDep) -> AsyncIterator[Session]:
    """Yield the request's one transaction; a GET takes no write lock."""
    with runtime.database.session(read_only=request.method in {"GET", "HEAD"}) as session:
        yield session


async def get_writing_session(runtime: RuntimeDep) -> AsyncIterator[Session]:
    """Yield a transaction that may write whatever the method is."""
    with runtime.database.session() as session:
        yield session


# scope="function": the commit happens before the answer leaves, so that nobody is told what was not kept.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
WritingSessionDep = Annotated[Session, Depends(get_writing_session, scope="function")]
"""For a GET that must write (most do not)."""


async def get_vault(runtime: RuntimeDep) -> Vault:
    """Return the vault."""
    return runtime.vault


VaultDep = Annotated[Vault, Depends(get_vault)]


class CommittingRoute(APIRoute):
    """A route that does all of its work in one thread: the endpoint, its answer as bytes, and the commit.

    A thread that waits for its turn among others costs milliseconds each time, and on SQLite nobody else can write
    until the commit. An answer that cannot be given is found out before it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # Any: FastAPI's signature
        super().__init__(path, _committing(endpoint, options.get("status_code") or 200), **options)


def _committing(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:  # Any: of any endpoint
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    def run(**asked: Any) -> Any:  # Any: what the endpoint asks for and answers
        answer = endpoint(**asked)
        if isinstance(answer, BaseModel):
            answer = Response(answer.model_dump_json(by_alias=True), status, media_type="application/json")
        for given in asked.values():
            if isinstance(given, Session):
                given.commit()
        return answer

    return run
