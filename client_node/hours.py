"""When a machine may train: a window of the day on some days of the week, in local time."""

from collections.abc import Collection
from datetime import datetime, time

from client_node.policy_sections import DAYS, Day

_DAY_MINUTES = 24 * 60
_NAMES = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}


def is_open(hours: str, days: Collection[Day], moment: datetime) -> bool:
    """Whether ``moment`` (local time) lies in ``HH:MM-HH:MM`` of one of ``days``.

    A window over midnight belongs to the day on which it begins: Friday's "22:00-06:00" ends on Saturday morning.
    """
    if not within(hours, moment.time()):
        return False
    begin, end = _ends(hours)
    morning_after = begin > end and moment.hour * 60 + moment.minute < begin
    return DAYS[(moment.weekday() - morning_after) % len(DAYS)] in days


def within(hours: str, moment: time) -> bool:
    """Whether ``moment`` lies in ``HH:MM-HH:MM``; the end may be past midnight, equal ends mean all day."""
    begin, end = _ends(hours)
    now = moment.hour * 60 + moment.minute
    if begin == end:
        return True
    return begin <= now < end if begin < end else now >= begin or now < end


def in_words(hours: str, days: Collection[Day]) -> str:
    """Return the window for people: ``between 22:00-06:00 local time``, with the days where they are not all."""
    begin, end = _ends(hours)
    when = "at any hour" if begin == end else f"between {hours} local time"
    if set(days) == set(DAYS):
        return when
    return f"{when} on {', '.join(_NAMES[day] for day in DAYS if day in days)}"


def _ends(hours: str) -> tuple[int, int]:
    begin, end = (_minutes(part) for part in hours.split("-"))
    return begin, end if end != _DAY_MINUTES or begin else begin


def _minutes(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
