"""Lines that are drawn here."""

import pytest

from portal.charts import kappa_mark, trend
from shared.contracts.agreement import Agreement


def test_a_line_has_gaps_where_there_is_no_figure() -> None:
    drawn = trend([0.0, 1.0, None, 0.5], top=1.0, width=104, height=28)
    assert drawn.path == "M4.0 24.0L36.0 4.0M100.0 14.0"
    assert [at for _, _, at in drawn.dots] == [0, 1, 3]


@pytest.mark.parametrize(
    ("values", "top"), [([], 1.0), ([None], 1.0), ([0.0], 1.0), ([0.13], 0.2), ([0.2], 0.2), ([3.0], 5.0), ([70], 100)]
)
def test_the_upper_edge_is_round(values: list[float | None], top: float) -> None:
    assert trend(values).top == pytest.approx(top)


def test_what_is_beyond_the_edge_stands_at_it() -> None:
    (dot,) = trend([9.0], top=1.0, height=28).dots
    assert dot[1] == 4.0
    mark = kappa_mark(Agreement(cells=4, agreed=1, kappa=-0.2, low=-0.9, high=0.5))
    assert mark == {"low": 0.0, "at": 0.0, "high": 50.0}
    assert kappa_mark(Agreement(cells=4, agreed=4, kappa=None)) is None
