"""What views get handed: the runtime, and one transaction a request."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session

from server.runtime import Runtime


def runtime_of(request: Request) -> Runtime:
    """Return the runtime that `create_app` was given."""
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]


def open_session(runtime: RuntimeDep) -> Iterator[Session]:
    """One transaction: committed when the view returns, rolled back when it raises."""
    with runtime.database.session() as session:
        yield session


# "function": the commit happens before the answer leaves, so that the page after a redirect sees it.
SessionDep = Annotated[Session, Depends(open_session, scope="function")]
