"""The worklist: what there is to read, who is to read it, and the clock that each case runs against."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from server.accounts import colleagues
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import opinion_repository, repository, views
from server.cases import worklist_repository as rows
from server.cases.access import require_reader, scope_of
from server.cases.lifecycle import DEFAULT_TARGETS, OPEN
from server.cases.schemas import Assigned, NotAssigned, Worklist, WorklistFilter, WorklistRow
from server.cases.service import subject
from server.cases.sight import without_ai
from server.cases.worklist_repository import Mark, Viewer
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import Priority
from shared.contracts.errors import ForbiddenError, NotFoundError, UsageError

PAGE: Final = 100
MOST_AT_ONCE: Final = 500
TARGET_MINUTES: Final = (5, 14 * 24 * 60)
"""The shortest and the longest turn-around target."""


def worklist(
    session: Session, principal: Principal, wanted: WorklistFilter, *, after: str | None = None, most: int = PAGE
) -> Worklist:
    """Return a page of the cases that this person may see, in the order that is wanted, from behind ``after``."""
    viewer = _viewer(session, principal)
    found = rows.listed(session, wanted, viewer=viewer, limit=most + 1, after=after)
    counted = rows.tally(session, viewer=viewer)
    return Worklist(
        rows=_lines(session, viewer, found[:most]),
        more=len(found) > most,
        matching=rows.matching(session, wanted, viewer=viewer),
        to_read=counted.to_read,
        stat=counted.stat,
        late=counted.late,
        mine=counted.mine,
        oldest_received_at=counted.oldest_received_at,
        hospitals=repository.hospitals(session, scope=viewer.scope),
        flags=sorted(rows.flags(session, viewer=viewer, states=rows.STATES[wanted.state])),
    )


def lines_of(
    session: Session, principal: Principal, wanted: WorklistFilter, case_ids: Sequence[str]
) -> list[WorklistRow]:
    """Return the lines of those cases that fit the filters."""
    viewer = _viewer(session, principal)
    return _lines(session, viewer, rows.listed(session, wanted, viewer=viewer, limit=len(case_ids), only=case_ids))


def marks(session: Session) -> dict[str, Mark]:
    """Return a mark for every open case of every hospital; see `worklist_repository.marks`."""
    return rows.marks(session, now=utc_now())


def assign(session: Session, principal: Principal, case_ids: Sequence[str], to: str | None) -> Assigned:
    """Have a colleague read these cases, or take the assignment back (``to`` None); tell which could not be.

    Raises:
        ForbiddenError: no reader. UsageError: none or too many cases. NotFoundError: nobody of that id reads smears.
    """
    require_reader(principal)
    if not 0 < len(case_ids) <= MOST_AT_ONCE:
        raise UsageError(f"Choose 1 to {MOST_AT_ONCE} cases.")
    reader = None if to is None else colleagues.reader(session, to)
    known, now = rows.for_assigning(session, sorted(set(case_ids)), scope=scope_of(principal)), utc_now()
    result = Assigned(to=reader)
    for case_id in dict.fromkeys(case_ids):
        case = known.get(case_id)
        problem = "There is no such case." if case is None else _why_not(session, case, to, now)
        if case is None or problem:
            result.failed.append(NotAssigned(case_id=case_id, reason=problem))
            continue
        result.done.append(case_id)
        if case.assigned_to != to:
            _assign(session, principal, case, to, now)
    return result


def _why_not(session: Session, case: Case, to: str | None, now: datetime) -> str:
    if case.state not in OPEN:
        return f"It is {case.state.value.replace('_', ' ')} already."
    if views.lease_holds(case, now) and case.claimed_by != to:
        return f"{repository.user_name(session, case.claimed_by)} is reading it; take it over if you have agreed."
    return ""


def _assign(session: Session, principal: Principal, case: Case, to: str | None, now: datetime) -> None:
    data = {"from": case.assigned_to, "to": to}
    case.assigned_to, case.assigned_at = to, None if to is None else now
    audit.record(
        session,
        subject=subject(case.id),
        actor=principal.actor,
        action="case.assigned" if to else "case.unassigned",
        data=data,
    )


def targets(session: Session, hospital_id: str) -> dict[Priority, int | None]:
    """Return a hospital's own turn-around targets, minutes; None where the network's hold."""
    hospital = repository.hospital(session, hospital_id)
    if hospital is None:
        raise NotFoundError("There is no such hospital.")
    return {priority: hospital.target_minutes.get(priority.value) for priority in Priority}


def set_targets(session: Session, principal: Principal, hospital_id: str, minutes: dict[Priority, int | None]) -> None:
    """Keep a hospital's turn-around targets; open cases run against them from now on, counted from their arrival.

    Raises:
        ForbiddenError: neither a coordinator, an administrator nor this hospital's own IT.
        UsageError: a target is too short or too long.
    """
    own = principal.role is Role.HOSPITAL_IT and principal.hospital_id == hospital_id
    if not own and principal.role not in {Role.COORDINATOR, Role.ADMIN}:
        raise ForbiddenError("Only this hospital's staff or a coordinator may set its turn-around targets.")
    shortest, longest = TARGET_MINUTES
    if any(value is not None and not shortest <= value <= longest for value in minutes.values()):
        raise UsageError(f"Give minutes from {shortest} to {longest} (14 days), or nothing for the network's target.")
    hospital = repository.hospital(session, hospital_id)
    if hospital is None:
        raise NotFoundError("There is no such hospital.")
    before = dict(hospital.target_minutes)
    hospital.target_minutes = {key.value: value for key, value in minutes.items() if value is not None}
    if before == hospital.target_minutes:
        return
    for case in rows.open_cases_of(session, hospital_id):
        case.due_at = case.received_at + target(hospital.target_minutes, case.priority)
    audit.record(
        session,
        subject=f"hospital:{hospital_id}",
        actor=principal.actor,
        action="hospital.targets",
        data={priority.value: _in_words(minutes.get(priority)) for priority in Priority},
    )


def _in_words(minutes: int | None) -> str:
    return "the network's" if minutes is None else f"{minutes} min"


def target(own: dict[str, float], priority: Priority) -> timedelta:
    """Return the turn-around target of a priority: the hospital's own, else the network's."""
    minutes = own.get(priority.value)
    return timedelta(minutes=float(minutes)) if minutes else DEFAULT_TARGETS[priority]


def _viewer(session: Session, principal: Principal) -> Viewer:
    return Viewer(scope_of(principal), principal.user_id, utc_now(), without_ai(session, principal))


def _lines(session: Session, viewer: Viewer, found: Sequence[rows.Listed]) -> list[WorklistRow]:
    """Return the lines, saying of which cases a second opinion is asked that this person can give, or waits for."""
    lines = [_row(line, viewer) for line in found]
    asked = {one.case_id: one for one in opinion_repository.open_opinions(session)}
    for line in lines:
        one = asked.get(line.case_id)
        if one is None:
            continue
        if one.reader_id == viewer.me:
            line.second_opinion, line.asked_by = "you", one.asked_by
        elif one.asked_by_id == viewer.me or one.reader_id is not None:
            line.second_opinion = "asked"
        else:
            line.second_opinion, line.asked_by = "anyone", one.asked_by
        line.amending = line.amending and line.second_opinion == "asked"
    return lines


def _row(line: rows.Listed, viewer: Viewer) -> WorklistRow:
    return views.worklist_row(
        line.case,
        hospital_name=line.hospital_name,
        holder_name=line.holder_name,
        assignee_name=line.assignee_name,
        key=[part.isoformat() if isinstance(part, datetime) else part for part in line.key],
        now=viewer.now,
        blind=line.case.awaits_impression or line.case.id in viewer.without_ai,
    )
