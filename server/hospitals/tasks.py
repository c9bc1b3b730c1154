"""What the hospitals' side does by itself."""

from collections.abc import Callable
from typing import Any

from server.hospitals import service
from server.runtime import Runtime


def forget_proofs(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """Drop request proofs that nobody could use again."""
    with runtime.database.session() as session:
        service.forget_proofs(session)


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {"hospitals.forget_proofs": forget_proofs}
PERIODIC: dict[str, float] = {"hospitals.forget_proofs": 60.0}
