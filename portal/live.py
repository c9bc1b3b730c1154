"""A run as a stream of server-sent events: new lines of its log book, and its figures when they change."""

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from server.accounts import service as accounts
from server.federation import service as federation
from server.federation.schemas import EventView, RunView
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError

EVERY_SECONDS = 1.0
Message = dict[str, str]


async def follow(runtime: Runtime, *, token: str, run_id: str, after: int) -> AsyncIterator[Message]:
    """Yield ``log``, ``run`` and at last ``end`` messages; ends too when the session does."""
    last, shown = after, ""
    while True:
        found = await run_in_threadpool(_look, runtime, token, run_id, last)
        if found is None:
            yield {"event": "end", "data": "{}"}
            return
        run, lines = found
        for line in lines:
            last = line.id
            yield {"event": "log", "id": str(line.id), "data": line.model_dump_json()}
        figures = run.model_dump_json(exclude={"events"})
        if figures != shown:
            shown = figures
            yield {"event": "run", "data": figures}
        if run.state.over and not lines:
            yield {"event": "end", "data": "{}"}
            return
        await asyncio.sleep(EVERY_SECONDS)


def _look(runtime: Runtime, token: str, run_id: str, after: int) -> tuple[RunView, list[EventView]] | None:
    with runtime.database.session(read_only=True) as session:
        principal = accounts.principal_for(session, token, used=False)
        if principal is None:
            return None
        try:
            # The log first: a line written in between is then told again, never lost.
            lines = federation.events_since(session, run_id, after, hospital_id=principal.hospital_id)
            return federation.run_view(session, principal, run_id), lines
        except HematovisionError:
            return None
