"""What a worker does for the insights."""

from collections.abc import Callable
from typing import Any

from server.insights import measures
from server.runtime import Runtime


def fill(runtime: Runtime, _payload: dict[str, Any]) -> None:  # Any: outbox payloads have their task's own shape
    """Take the figures of cases from before there were any."""
    with runtime.database.session() as session:
        measures.fill(session)


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {"insights.fill": fill}
PERIODIC: dict[str, float] = {"insights.fill": 300.0}
