"""The life cycle of a case: the one table of allowed transitions, and who counts as what."""

from datetime import timedelta
from typing import Final

from shared.contracts.case import CaseState, Priority
from shared.contracts.errors import ConflictError

_S = CaseState

TRANSITIONS: Final[dict[CaseState, frozenset[CaseState]]] = {
    _S.RECEIVED: frozenset({_S.TRIAGED, _S.REJECTED, _S.RECALLED}),
    _S.TRIAGED: frozenset({_S.AVAILABLE, _S.REJECTED, _S.RECALLED}),
    _S.AVAILABLE: frozenset({_S.CLAIMED, _S.REJECTED, _S.RECALLED}),
    _S.CLAIMED: frozenset({_S.IN_REVIEW, _S.AVAILABLE, _S.REJECTED, _S.RECALLED}),
    _S.IN_REVIEW: frozenset({_S.READY, _S.AVAILABLE, _S.REJECTED, _S.RECALLED}),
    _S.READY: frozenset({_S.SIGNED, _S.IN_REVIEW, _S.RECALLED}),
    # Back into review: an amendment, which makes a new version of the report.
    _S.SIGNED: frozenset({_S.DELIVERED, _S.IN_REVIEW}),
    _S.DELIVERED: frozenset({_S.ACKNOWLEDGED, _S.IN_REVIEW}),
    _S.ACKNOWLEDGED: frozenset({_S.CLOSED, _S.IN_REVIEW}),
    _S.CLOSED: frozenset({_S.IN_REVIEW}),
    _S.REJECTED: frozenset({_S.IN_REVIEW}),
    _S.RECALLED: frozenset(),
}

OPEN: Final = frozenset({_S.RECEIVED, _S.TRIAGED, _S.AVAILABLE, _S.CLAIMED, _S.IN_REVIEW, _S.READY})
DONE: Final = frozenset({_S.SIGNED, _S.DELIVERED, _S.ACKNOWLEDGED, _S.CLOSED})
FINISHED: Final = DONE | {_S.REJECTED}
"""Nothing is left to read: signed, or the glass slide is asked for."""
READABLE: Final = frozenset({_S.AVAILABLE, _S.CLAIMED, _S.IN_REVIEW, _S.READY})
"""A hematologist may hold and change a case in these."""

PRIORITY_RANK: Final = {Priority.STAT: 0, Priority.URGENT: 1, Priority.ROUTINE: 2}

DEFAULT_TARGETS: Final = {
    Priority.STAT: timedelta(hours=1),
    Priority.URGENT: timedelta(hours=4),
    Priority.ROUTINE: timedelta(hours=24),
}
"""Turn-around targets where a hospital has set none of its own."""

LEASE: Final = timedelta(minutes=5)
"""How long a claim holds without a heartbeat."""


def check_transition(before: CaseState, after: CaseState) -> None:
    """Return if a case may go from ``before`` to ``after``.

    Raises:
        ConflictError: it may not.
    """
    if after not in TRANSITIONS[before]:
        raise ConflictError(
            f"The case is {before.value.replace('_', ' ')}; it cannot become {after.value.replace('_', ' ')}. "
            "Reload the page to see where it stands."
        )
