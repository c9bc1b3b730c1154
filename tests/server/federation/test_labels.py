"""Labels that no completed run has learnt from, by where they come from."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session

from server.federation import labels, service
from server.federation.labels import Labels
from server.federation.schemas import RunPlan
from server.federation.states import RunState
from server.models import Run
from tests.server.federation.world import COORDINATOR, census, new_database, node_of

SOUTH = RunPlan(sites=["south"], min_sites=1)


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database().session() as session:
        for hospital in ("north", "south"):
            _counted(session, hospital, cells=100)
        yield session


def _counted(session: Session, hospital: str, *, cells: int, reports: int = 0) -> None:
    """Store a census of so many cells, some of whose labels come from reports."""
    counted = census(neutrophil=40, lymphocyte=cells - 48)
    service.store_census(session, node_of(hospital), counted.model_copy(update={"feedback": reports}))


def _completed(session: Session, plan: RunPlan) -> Run:
    run = session.get_one(Run, service.start_run(session, COORDINATOR, plan))
    run.state = RunState.COMPLETED
    session.flush()
    return run


def test_all_labels_are_new_before_the_first_completed_run(session: Session) -> None:
    assert labels.fresh(session) == 200
    assert labels.fresh(session, SOUTH) == 100


def test_imported_cells_are_new_labels_as_those_of_reports_are(session: Session) -> None:
    _completed(session, RunPlan())
    assert labels.fresh(session) == 0
    _counted(session, "north", cells=350)
    _counted(session, "south", cells=107, reports=7)
    assert labels.fresh(session) == 257
    assert labels.fresh(session, SOUTH) == 7


def test_a_report_that_corrects_an_imported_cell_is_one_new_label(session: Session) -> None:
    _completed(session, RunPlan())
    _counted(session, "north", cells=100, reports=1)
    assert labels.fresh(session) == 1


def test_cells_that_are_gone_make_up_for_none_that_came(session: Session) -> None:
    _completed(session, RunPlan())
    _counted(session, "north", cells=60)
    _counted(session, "south", cells=130)
    assert labels.fresh(session) == 30


def test_labels_of_who_was_not_asked_stay_new(session: Session) -> None:
    _completed(session, SOUTH)
    assert labels.fresh(session) == 100
    _completed(session, RunPlan())
    _counted(session, "north", cells=120)
    _completed(session, SOUTH)
    assert labels.fresh(session) == 20


def test_imports_before_a_run_of_an_earlier_version_are_not_called_new(session: Session) -> None:
    run = _completed(session, RunPlan())
    run.imported = None
    _counted(session, "north", cells=140, reports=30)
    assert labels.fresh(session) == 30
    again = labels.learnt_from(session, SOUTH)
    assert again == {"north": Labels(reports=0, imported=None), "south": Labels(reports=0, imported=100)}
