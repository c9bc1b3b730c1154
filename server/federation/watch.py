"""Follows a run's log book as it is written."""

import time
from collections.abc import Iterator

from server.db.session import Database
from server.federation import service
from server.federation.schemas import EventView


def watch(database: Database, run_id: str, *, after_id: int = 0, poll_seconds: float = 1.0) -> Iterator[EventView]:
    """Yield the lines of a run's log book after ``after_id`` as they appear, until the run is over or paused."""
    while True:
        with database.session(read_only=True) as session:
            ended = not service.is_active(session, run_id)
            events = service.events_since(session, run_id, after_id)
        yield from events
        if events:
            after_id = events[-1].id
        elif ended:
            return
        else:
            time.sleep(poll_seconds)
