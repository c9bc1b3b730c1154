"""The time of a reading: gaps over a minute are spent elsewhere."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.insights.clock import active_seconds

BEGIN = datetime(2026, 11, 26, 8, tzinfo=UTC)


def at(*seconds: float) -> list[datetime]:
    return [BEGIN + timedelta(seconds=one) for one in seconds]


def test_gaps_up_to_a_minute_count_and_longer_ones_do_not() -> None:
    assert active_seconds(at(0, 10, 70, 131, 140)) == 10 + 60 + 9


def test_order_does_not_matter_and_one_moment_is_no_time() -> None:
    assert active_seconds(at(30, 0, 15)) == 30
    assert active_seconds(at(5)) == active_seconds([]) == 0


@given(st.lists(st.floats(0, 600), max_size=30))
def test_time_is_never_longer_than_from_first_to_last_nor_shortened_by_more_moments(seconds: list[float]) -> None:
    moments = at(*seconds)
    found = active_seconds(moments)
    assert 0 <= found <= (max(seconds) - min(seconds) if seconds else 0) + 1e-3
    assert active_seconds([*moments, *at(*(one + 1 for one in seconds))]) >= found - 1e-3
