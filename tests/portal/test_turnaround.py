"""The page of turn-around: for whom, and that its pictures say what the figures say."""

from datetime import timedelta

import pytest

from portal import turnaround_charts as charts
from server.cases.turnaround import Turnaround, TurnaroundDay
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import CaseState
from tests.portal.client import Browser
from tests.portal.factories import Network


def _sign(network: Network, *, late: bool) -> None:
    with network.centre.runtime.database.session() as session:
        case = session.get_one(Case, network.cases[0])
        case.state, case.signed_at = CaseState.SIGNED, utc_now()
        case.due_at = utc_now() + timedelta(minutes=-5 if late else 5)


@pytest.mark.parametrize("late", [False, True])
def test_page_tells_what_was_signed_and_in_time(visitor: Browser, network: Network, late: bool) -> None:
    _sign(network, late=late)
    visitor.sign_in("coordinator")
    page = visitor.get("/turnaround").text
    assert "St. Elisabeth Hospital" in page
    assert ("0 in time, 1 late" in page, "1 in time, 0 late" in page) == (late, not late)
    (line, _) = visitor.get("/turnaround.json?days=7").json()["lines"]
    assert (line["hospital_id"], line["signed"], line["in_time"]["count"]) == (None, 1, int(not late))


def test_span_that_is_not_offered_is_refused(visitor: Browser) -> None:
    assert visitor.sign_in("coordinator").get("/turnaround?days=365").status_code == 422


def test_axis_is_logarithmic_and_holds_what_is_outside() -> None:
    assert charts.at(5) == charts.at(1) == 0
    assert charts.at(4320) == charts.at(99999) == charts.WIDTH
    assert charts.at(60) - charts.at(15) == pytest.approx(charts.at(240) - charts.at(60), abs=0.2)


def test_columns_stand_on_one_scale() -> None:
    today = utc_now().date()
    days = [TurnaroundDay(day=today - timedelta(days=back), in_time=back, late=1) for back in (3, 2, 1, 0)]
    drawn = charts.columns(Turnaround(days=4, lines=[], by_day=days))
    assert drawn.most == 4
    assert [(one.in_time, one.late) for one in drawn.columns] == [(90, 30), (60, 30), (30, 30), (0, 30)]
    assert all(one.x + one.width <= charts.COLUMN_WIDTH for one in drawn.columns)
