"""What endpoints and views ask for by annotation."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from sqlmodel import Session

from server.runtime import Runtime
from server.vault.port import Vault


def get_runtime(connection: HTTPConnection) -> Runtime:
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


def get_vault(runtime: RuntimeDep) -> Vault:
    """Return the vault."""
    return runtime.vault


VaultDep = Annotated[Vault, Depends(get_vault)]
