"""How long cases take, from coming in to the signature, by hospital and priority; for those who run the network.

Nothing here is about a patient or a reader: times, counts and hospitals alone.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from statistics import median, quantiles
from typing import Final

from pydantic import BaseModel
from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import repository
from server.cases.lifecycle import OPEN, PRIORITY_RANK
from server.models.base import utc_now
from shared.contracts.analysis import ClassShare
from shared.contracts.case import Priority
from shared.contracts.errors import ForbiddenError
from shared.statistics import share

SPANS: Final = (7, 30, 90)
"""Days that can be looked back on."""
_SEERS: Final = frozenset({Role.COORDINATOR, Role.ADMIN, Role.AUDITOR, Role.HOSPITAL_IT})


class TurnaroundLine(BaseModel):
    """The cases of one priority, of a hospital or of all."""

    hospital_id: str | None
    """None: every hospital that this person sees."""
    hospital_name: str
    priority: Priority
    target_minutes: float
    """What a case of this kind may take: the median over its cases."""
    signed: int
    minutes: float | None
    """Median from coming in to the signature; None where nothing was signed."""
    tenth: float | None
    ninetieth: float | None
    """One and nine tenths of the cases took at most so long; None below two signed cases."""
    claimed_minutes: float | None
    """Median until the reader who signed it took it."""
    in_time: ClassShare | None
    """Of the signed cases, with its exact 95 % interval."""
    waiting: int
    overdue: int
    """Of the waiting ones."""


class TurnaroundDay(BaseModel):
    """What was signed on a day (UTC)."""

    day: date
    in_time: int
    late: int


class Turnaround(BaseModel):
    """Turn-around over the last days."""

    days: int
    lines: list[TurnaroundLine]
    by_day: list[TurnaroundDay]
    """Every day of the span, the oldest first."""


def turnaround(session: Session, principal: Principal, days: int = 30) -> Turnaround:
    """Return the figures of the last ``days`` days, whole by UTC; hospital IT sees its own hospital's only.

    Raises:
        ForbiddenError: the role does not see them.
    """
    scope, now = _scope(principal), utc_now()
    today = now.date()
    since = datetime.combine(today - timedelta(days=days - 1), datetime.min.time(), now.tzinfo)
    found = repository.timed(session, scope=scope, signed_since=since, open_states=OPEN)
    groups: dict[tuple[str | None, str, Priority], list[repository.Timed]] = defaultdict(list)
    for one in found:
        groups[(one.hospital_id, one.hospital_name, one.priority)].append(one)
        if scope is None:
            groups[(None, "All hospitals", one.priority)].append(one)
    lines = [_line(*key, cases, now) for key, cases in groups.items()]
    lines.sort(key=lambda line: (line.hospital_id is not None, line.hospital_name, PRIORITY_RANK[line.priority]))
    return Turnaround(days=days, lines=lines, by_day=_by_day(found, today, days))


def _scope(principal: Principal) -> str | None:
    if principal.role not in _SEERS:
        raise ForbiddenError("Turn-around is for those who run the network; ask a coordinator.")
    if principal.role is Role.HOSPITAL_IT:
        return principal.hospital_id or ""
    return None


def _line(
    hospital_id: str | None, hospital_name: str, priority: Priority, cases: Sequence[repository.Timed], now: datetime
) -> TurnaroundLine:
    signed = [one for one in cases if one.signed_at is not None]
    took = sorted(_minutes(one.received_at, one.signed_at) for one in signed)
    claimed = [_minutes(one.received_at, one.claimed_at) for one in signed if one.claimed_at]
    tenths = quantiles(took, n=10, method="inclusive") if len(took) > 1 else []
    waiting = [one for one in cases if one.signed_at is None]
    return TurnaroundLine(
        hospital_id=hospital_id,
        hospital_name=hospital_name,
        priority=priority,
        target_minutes=median(_minutes(one.received_at, one.due_at) for one in cases),
        signed=len(signed),
        minutes=median(took) if took else None,
        tenth=tenths[0] if tenths else None,
        ninetieth=tenths[-1] if tenths else None,
        claimed_minutes=median(claimed) if claimed else None,
        in_time=share(sum(one.in_time for one in signed), len(signed)) if signed else None,
        waiting=len(waiting),
        overdue=sum(one.due_at < now for one in waiting),
    )


def _by_day(found: Sequence[repository.Timed], today: date, days: int) -> list[TurnaroundDay]:
    counted = Counter((one.signed_at.date(), one.in_time) for one in found if one.signed_at)
    span = [today - timedelta(days=back) for back in reversed(range(days))]
    return [TurnaroundDay(day=day, in_time=counted[(day, True)], late=counted[(day, False)]) for day in span]


def _minutes(begun: datetime, ended: datetime | None) -> float:
    return 0.0 if ended is None else max(0.0, (ended - begun).total_seconds() / 60)
