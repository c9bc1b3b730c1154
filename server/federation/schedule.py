"""Runs on a schedule: launched at their time of the week if enough was learnt since; each that is not says why."""

from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field, ValidationError
from sqlmodel import Session

import server.audit.service as audit
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.federation import labels, repository, service
from server.federation.planning import planned
from server.federation.schemas import RunPlan
from server.models.base import utc_now
from server.models.federation import RunSchedule
from shared.contracts.errors import HematovisionError, NotFoundError

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LATE: Final = timedelta(hours=1)
"""A time that passed longer ago, while the centre was away, is let go: a run of the night is not for the morning."""
UNREADABLE: Final = "its plan cannot be read by this version; remove the schedule and keep the plan anew"
SCHEDULER: Final = Principal(
    user_id="schedule", username="schedule", display_name="the schedule", role=Role.COORDINATOR, hospital_id=None
)


class When(BaseModel):
    """A time of the week, in UTC, and what must have come since the last run."""

    weekday: int | None = Field(default=None, ge=0, le=6)
    """0: Monday; None: every day."""
    hour: int = Field(ge=0, le=23)
    minute: int = Field(default=0, ge=0, le=59)
    least_labels: int = Field(default=0, ge=0, le=10_000_000)


class ScheduleView(BaseModel):
    """A schedule as pages and commands show it."""

    id: str
    when: str
    next_at: datetime
    least_labels: int
    plan: RunPlan | None
    """None: it was kept by another version and cannot be read any more; see `UNREADABLE`."""
    created_by: str
    outcome: str
    run_id: str | None


def add(session: Session, principal: Principal, plan: RunPlan, when: When) -> str:
    """Keep a schedule; return its key.

    Raises:
        NothingToDoError, UsageError: the plan could not be launched even now.
    """
    service.require_launcher(principal)
    planned(session, plan)
    row = RunSchedule(
        plan=plan.model_dump(mode="json"),
        weekday=when.weekday,
        minute=60 * when.hour + when.minute,
        least_labels=when.least_labels,
        created_by=principal.username,
    )
    repository.add(session, row)
    data = {"when": _words(row), "least_labels": row.least_labels, "rounds": plan.rounds}
    audit.record(session, subject=_subject(row), actor=principal.actor, action="federation.schedule_add", data=data)
    return row.id


def remove(session: Session, principal: Principal, schedule_id: str) -> None:
    """Forget a schedule; a run that it launched goes on."""
    service.require_launcher(principal)
    row = repository.schedule(session, schedule_id)
    if row is None:
        raise NotFoundError("There is no such schedule.")
    audit.record(session, subject=_subject(row), actor=principal.actor, action="federation.schedule_remove")
    repository.remove(session, row)


def view(session: Session, principal: Principal) -> list[ScheduleView]:
    """Return every schedule, the oldest first."""
    service.require_viewer(principal)
    return [
        ScheduleView(
            id=row.id,
            when=_words(row),
            next_at=_last_due(row, utc_now()) + _period(row),
            least_labels=row.least_labels,
            plan=plan.as_told(principal.hospital_id) if (plan := _plan(row)) is not None else None,
            created_by=row.created_by,
            outcome=row.outcome,
            run_id=row.run_id,
        )
        for row in repository.schedules(session)
    ]


def launch_due(session: Session, now: datetime) -> list[str]:
    """Launch what is due at ``now``; return the keys of the runs. What is not launched says why, once."""
    return [key for row in repository.schedules(session) if (key := _consider(session, row, now)) is not None]


def _consider(session: Session, row: RunSchedule, now: datetime) -> str | None:
    due = _last_due(row, now)
    if due <= row.considered_at:
        return None
    row.considered_at = due
    plan, key = _plan(row), None
    fresh = labels.fresh(session, plan)
    reason = UNREADABLE if plan is None else _why_not(row, due, now, fresh)
    if plan is not None and reason is None:
        try:
            key = service.start_run(session, SCHEDULER, plan)
        except HematovisionError as error:
            reason = error.message
    if key is None:
        _let_go(session, row, due, reason or "")
        return None
    row.run_id, row.outcome = key, f"{due:%Y-%m-%d %H:%M} UTC: launched with {fresh} new labels"
    service.write_event(session, key, "run", f"By the schedule “{_words(row)}”: {fresh} new labels")
    return key


def _plan(row: RunSchedule) -> RunPlan | None:
    """Return the plan, or None: one that cannot be read must not stop the others."""
    try:
        return RunPlan.model_validate(row.plan)
    except ValidationError:
        return None


def _why_not(row: RunSchedule, due: datetime, now: datetime, fresh: int) -> str | None:
    if now - due > _LATE:
        return f"the centre was away at {due:%H:%M} UTC"
    if fresh < row.least_labels:
        return f"{fresh} new labels since the last run, {row.least_labels} are asked for"
    return None


def _let_go(session: Session, row: RunSchedule, due: datetime, reason: str) -> None:
    row.outcome = f"{due:%Y-%m-%d %H:%M} UTC: not launched: {reason}"[:500]
    data = {"due": f"{due:%Y-%m-%d %H:%M} UTC", "reason": reason[:300]}
    audit.record(session, subject=_subject(row), actor="system:schedule", action="federation.schedule_skip", data=data)


def _last_due(row: RunSchedule, now: datetime) -> datetime:
    """Return the newest time at or before ``now`` that the schedule names."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    due = midnight + timedelta(minutes=row.minute)
    if row.weekday is not None:
        due -= timedelta(days=(due.weekday() - row.weekday) % 7)
    return due if due <= now else due - _period(row)


def _period(row: RunSchedule) -> timedelta:
    return timedelta(days=1 if row.weekday is None else 7)


def _words(row: RunSchedule) -> str:
    day = "day" if row.weekday is None else WEEKDAYS[row.weekday]
    return f"every {day} at {row.minute // 60:02}:{row.minute % 60:02} UTC"


def _subject(row: RunSchedule) -> str:
    return f"schedule:{row.id}"
