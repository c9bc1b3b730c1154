"""What others do to a case while its page is open, as a stream of server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from server.accounts import service as accounts
from server.cases import service as cases
from server.cases import supplements
from server.consult import service as consult
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError

EVERY_SECONDS = 1.5
LONGEST = 900.0
"""How many seconds a stream lasts; the browser opens another by itself."""
Message = dict[str, str]
Seen = dict[str, str]


async def follow(runtime: Runtime, *, token: str, case_id: str, seconds: float = LONGEST) -> AsyncIterator[Message]:
    """Yield the name of whatever has changed; ``end`` tells that the session has, or that the case is out of sight."""
    until = time.monotonic() + seconds
    told = await run_in_threadpool(_look, runtime, token, case_id)
    yield {"event": "ready", "data": "{}"}
    while told is not None and time.monotonic() < until:
        await asyncio.sleep(EVERY_SECONDS)
        found = await run_in_threadpool(_look, runtime, token, case_id)
        for name, stamp in (found or {}).items():
            if told.get(name) != stamp:
                yield {"event": name, "data": "{}"}
        told = found
    if told is None:
        yield {"event": "end", "data": "{}"}


def _look(runtime: Runtime, token: str, case_id: str) -> Seen | None:
    with runtime.database.session(read_only=True) as session:
        principal = accounts.principal_for(session, token, used=False)
        if principal is None:
            return None
        try:
            holder = cases.holder(session, principal, case_id)
        except HematovisionError:
            return None
        return {
            "consult": consult.stamp(session, case_id),
            "more": supplements.stamp(session, case_id),
            "holder": str(holder),
        }
