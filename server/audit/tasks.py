"""What the audit does by itself."""

from collections.abc import Callable
from typing import Any

from server.audit import service
from server.runtime import Runtime


def checkpoint(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """Sign the heads that moved."""
    with runtime.database.session() as session:
        service.checkpoint(session, runtime.vault)


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {"audit.checkpoint": checkpoint}
PERIODIC: dict[str, float] = {"audit.checkpoint": 30.0}
