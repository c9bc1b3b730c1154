"""Windows of the day, over midnight and on some days of the week."""

from datetime import UTC, datetime, time

import pytest

from client_node.hours import in_words, is_open, within
from client_node.policy_sections import DAYS, Day


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        ("00:00-24:00", time(23, 59), True),
        ("08:00-17:00", time(8, 0), True),
        ("08:00-17:00", time(17, 0), False),
        ("08:00-24:00", time(23, 59), True),
        ("08:00-24:00", time(7, 59), False),
        ("09:00-09:00", time(3, 0), True),
        ("22:00-06:00", time(23, 0), True),
        ("22:00-06:00", time(5, 59), True),
        ("22:00-06:00", time(6, 0), False),
    ],
)
def test_within_handles_midnight(hours: str, moment: time, expected: bool) -> None:
    assert within(hours, moment) is expected


@pytest.mark.parametrize(
    ("hours", "days", "moment", "expected"),
    [
        ("00:00-24:00", ("sat", "sun"), datetime(2026, 1, 3, 0, 0, tzinfo=UTC), True),  # Saturday
        ("00:00-24:00", ("sat", "sun"), datetime(2026, 1, 2, 23, 59, tzinfo=UTC), False),
        ("22:00-06:00", ("fri",), datetime(2026, 1, 2, 22, 0, tzinfo=UTC), True),
        ("22:00-06:00", ("fri",), datetime(2026, 1, 3, 5, 59, tzinfo=UTC), True),  # the morning after
        ("22:00-06:00", ("fri",), datetime(2026, 1, 2, 5, 59, tzinfo=UTC), False),  # Thursday's night
        ("22:00-06:00", ("sun",), datetime(2026, 1, 5, 1, 0, tzinfo=UTC), True),  # Monday morning
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(
    hours: str, days: tuple[Day, ...], moment: datetime, expected: bool
) -> None:
    assert is_open(hours, days, moment) is expected


def test_words_name_days_only_where_they_are_not_all() -> None:
    assert in_words("00:00-24:00", DAYS) == "at any hour"
    assert in_words("20:00-06:00", ("sun", "sat")) == "between 20:00-06:00 local time on Saturday, Sunday"
