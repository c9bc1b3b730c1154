"""What changes in the worklist, as a stream of server-sent events.

One look at the database a second serves everybody who follows in this process, however many they are. Each follower
compares what it told last with what there is, so nothing is lost between two looks, whoever made the change.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakKeyDictionary

from starlette.concurrency import run_in_threadpool

from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.cases import worklist
from server.cases.access import scope_of
from server.consult import service as consult
from server.runtime import Runtime

EVERY_SECONDS = 1.0
SESSION_SECONDS = 15.0
"""How soon a stream notices that its session has ended."""
LONGEST = 900.0
"""How many seconds a stream lasts; the browser opens another by itself."""
MOST_TOLD = 200
"""More changed lines than these, and the page is told to read its list anew."""
Message = dict[str, str]
Marks = dict[str, object]


@dataclass
class Feed:
    """The newest look at the worklist, shared by all followers of one process."""

    runtime: Runtime
    looked_at: float = 0.0
    seen: Marks = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> Marks:
        """Return what there is, at most a second old; the same object while nothing changes."""
        async with self.lock:
            if time.monotonic() - self.looked_at >= EVERY_SECONDS * 0.9:
                found = await run_in_threadpool(_marks, self.runtime)
                self.looked_at = time.monotonic()
                if found != self.seen:
                    self.seen = found
            return self.seen


_feeds: WeakKeyDictionary[object, dict[asyncio.AbstractEventLoop, Feed]] = WeakKeyDictionary()


def feed_of(runtime: Runtime) -> Feed:
    """Return the feed of this process's runtime and event loop."""
    loop = asyncio.get_running_loop()
    by_loop = _feeds.setdefault(runtime.database, {})
    if loop not in by_loop:
        by_loop.clear()  # a loop that is gone left its feed behind
        by_loop[loop] = Feed(runtime)
    return by_loop[loop]


@dataclass(frozen=True)
class _Asked:
    """A case's mark, and when something was last said in it; a signed case has questions, but no mark."""

    mark: object
    at: datetime

    @property
    def hospital_id(self) -> str | None:
        """The hospital, where the case is open."""
        return getattr(self.mark, "hospital_id", None)


async def follow(runtime: Runtime, *, token: str, seconds: float = LONGEST) -> AsyncIterator[Message]:
    """Yield ``rows`` (ids of changed lines; empty: too many, read anew); ``end`` tells that the session has ended."""
    feed = feed_of(runtime)
    principal = await run_in_threadpool(_who, runtime, token)
    told, checked = await feed.look(), time.monotonic()
    until = checked + seconds
    yield {"event": "ready", "data": "{}"}
    while principal is not None:
        if time.monotonic() >= until:
            return
        await asyncio.sleep(EVERY_SECONDS)
        if time.monotonic() - checked >= SESSION_SECONDS:
            principal, checked = await run_in_threadpool(_who, runtime, token), time.monotonic()
            if principal is None:
                break
        found = await feed.look()
        if found is told:
            continue
        changed = _changed(told, found, principal)
        told = found
        if changed:
            yield {"event": "rows", "data": json.dumps(changed if len(changed) <= MOST_TOLD else [])}
    yield {"event": "end", "data": "{}"}


def _changed(before: Marks, now: Marks, principal: Principal) -> list[str]:
    scope = scope_of(principal)
    ids = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if scope is None:
        return ids
    return [key for key in ids if getattr(now.get(key, before.get(key)), "hospital_id", None) == scope]


def _marks(runtime: Runtime) -> Marks:
    with runtime.database.session(read_only=True) as session:
        marks: Marks = dict(worklist.marks(session))
        for case_id, at in consult.newest(session).items():
            marks[case_id] = _Asked(marks.get(case_id), at)
        return marks


def _who(runtime: Runtime, token: str) -> Principal | None:
    with runtime.database.session(read_only=True) as session:
        return accounts.principal_for(session, token, used=False)
