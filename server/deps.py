"""What endpoints and views ask for by annotation."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from sqlmodel import Session

from server.runtime import Runtime
from server.vault.port import Vault


# Those that wait for nothing are coroutines: a plain function would be sent to another thread and back.
async def get_runtime(connection: HTTPConnection) -> Runtime:
    """Return the runtime of the application that answers."""
    runtime: Runtime = connection.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


def get_session(request: Request, runtime: RuntimeDep) -> Iterator[Session]:
    """Yield the request's one transaction; a GET takes no write lock."""
    with runtime.database.session(read_only=request.method in {"GET", "HEAD"}) as session:
        yield session


def get_writing_session(runtime: RuntimeDep) -> Iterator[Session]:
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
    """A route that commits in the thread that did the work, at once.

    The transaction's own end comes only when the answer was checked and put into bytes, two changes of thread later;
    on SQLite nobody else can write until then.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # Any: FastAPI's signature
        super().__init__(path, _committing(endpoint), **options)


def _committing(endpoint: Callable[..., Any]) -> Callable[..., Any]:  # Any: of any endpoint
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    def run(**asked: Any) -> Any:  # Any: what the endpoint asks for and answers
        answer = endpoint(**asked)
        for given in asked.values():
            if isinstance(given, Session):
                given.commit()
        return answer

    return run
