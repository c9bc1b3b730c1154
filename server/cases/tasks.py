"""What a worker does for cases."""

from collections.abc import Callable
from typing import Any

from server.cases import ingest as taking_in
from server.cases import supplements
from server.runtime import Runtime


def ingest(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Take one committed case in."""
    taking_in.ingest(runtime, hospital_id=payload["hospital_id"], case_id=payload["case_id"])


def supplement(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Take in what a node sent later for a case."""
    supplements.take_in(runtime, payload["request_id"])


def lapse(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """End requests for more cells of which nothing comes any more."""
    supplements.lapse(runtime)


def drop(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Remove what was uploaded for a request of which nothing was taken in."""
    supplements.drop(runtime, payload["request_id"])


def scan(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """Find cases whose commit notice was lost."""
    taking_in.scan(runtime)


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {
    taking_in.INGEST: ingest,
    supplements.TAKE_IN: supplement,
    supplements.DROP: drop,
    "cases.scan": scan,
    "cases.supplement_lapse": lapse,
}
PERIODIC: dict[str, float] = {"cases.scan": 60.0, "cases.supplement_lapse": 60.0}
