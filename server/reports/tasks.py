"""What a worker does for reports."""

from collections.abc import Callable
from typing import Any

from server.reports import render as rendering
from server.runtime import Runtime


def render(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Render one signed report."""
    rendering.render(runtime, payload["report_id"])


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {"reports.render": render}
