"""Hospitals chosen for a run: who is asked, what is counted against them, and whom a hospital's own staff learn of."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session

from server.accounts.roles import Role
from server.federation import dry_run, planning, service, steering
from server.federation.attendance import Attendance, Stop
from server.federation.book import RunBook
from server.federation.privacy import Measure, RunPrivacy
from server.federation.rehearsal import rehearse
from server.federation.schemas import RunPlan
from server.federation.strategies.registry import StrategyName
from server.models import DryRun, Run
from server.runtime import Runtime
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import DryRunReply
from tests.server.federation.fleet import MemoryFleet, says, silent
from tests.server.federation.world import COORDINATOR, census, new_database, node_of, person

SOUTH = RunPlan(sites=["south"], min_sites=1)
ALL = ("north", "south", "east", "west")


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database(hospitals=ALL).session() as session:
        _censuses(session)
        yield session


def _censuses(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=90, basophil=90))
    service.store_census(session, node_of("south"), census(neutrophil=30, lymphocyte=30))


def test_only_chosen_hospitals_are_sampled(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        _censuses(session)
        run_id = service.start_run(session, COORDINATOR, SOUTH)
        session.get_one(Run, run_id).base_sha256 = "0" * 64
    book, fleet = RunBook(runtime.database, run_id), MemoryFleet({1: silent, 2: silent})
    plan = book.begin("7")
    assert plan.sites == frozenset({"south"})
    assert Attendance(book, fleet, Stop(book)).sample(plan) == {2: "south"}


def test_only_chosen_hospitals_are_rehearsed_and_shown(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        _censuses(session)
        key = dry_run.start(session, COORDINATOR, SOUTH)
        session.get_one(DryRun, key).base_sha256 = "0" * 64
    yes = DryRunReply(takes_part=True).model_dump_json()
    fleet = MemoryFleet({1: says(1, yes), 2: says(2, yes)})
    rehearse(runtime, key, fleet, flower_run_id="7", gather_seconds=0)
    assert [node for _, node, _ in fleet.asked] == [2]
    with runtime.database.session(read_only=True) as session:
        view = dry_run.view(session, COORDINATOR, key)
        assert ([site.hospital_id for site in view.sites], view.enough, view.plan.sites) == (["south"], True, ["south"])
        told = dry_run.view(session, person(Role.HOSPITAL_IT, "north"), key)
    assert (told.sites, told.plan.sites) == ([], [])


def test_classes_are_those_of_the_chosen_hospitals(session: Session) -> None:
    _, recipe = planning.planned(session, SOUTH)
    assert recipe.classes == (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (RunPlan(sites=["south", "moon"]), "No hospital moon can be asked; .* are: east, north, south, west."),
        (RunPlan(sites=["south", "south"]), "Name each hospital once."),
        (RunPlan(sites=["south"]), "A round needs 2 hospitals and 1 is chosen"),
        (
            RunPlan(sites=["north", "south"], strategy=StrategyName.TRIMMED_MEAN),
            "needs 3 hospitals in a round; 2 of those chosen have an approved training node.",
        ),
        (
            RunPlan(sites=["north", "south"], privacy=RunPrivacy(measure=Measure.SECURE_AGGREGATION)),
            "secure aggregation needs 3; 2 of those chosen have",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_refused_with_a_sentence(session: Session, plan: RunPlan, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        service.start_run(session, COORDINATOR, plan)


def test_the_choice_is_kept_and_told_to_the_centre_alone(session: Session) -> None:
    run_id = service.start_run(session, COORDINATOR, SOUTH)
    view = service.run_view(session, COORDINATOR, run_id)
    assert (view.asked, view.events[-1].text) == ({"south": "South Hospital"}, "Asked alone: south")
    told = service.run_view(session, person(Role.HOSPITAL_IT, "north"), run_id)
    assert (told.asked, [event.text for event in told.events if "south" in event.text]) == ({}, [])
    service.fail(session, run_id, "whatever")
    assert steering.plan_of(session, COORDINATOR, run_id).sites == ["south"]
    again = steering.clone(session, COORDINATOR, run_id)
    assert service.run_view(session, COORDINATOR, again).asked == {"south": "South Hospital"}


def test_labels_of_hospitals_that_are_not_asked_stay_new(session: Session) -> None:
    for name in ("north", "south"):
        counted = census(neutrophil=30, lymphocyte=30).model_copy(update={"feedback": 9})
        service.store_census(session, node_of(name), counted)
    run = session.get_one(Run, service.start_run(session, COORDINATOR, SOUTH))
    assert (run.feedback, run.imported) == ({"south": 9}, {"south": 59})


@pytest.mark.parametrize("given", [{}, {"norm_limit": 0}])
def test_secure_aggregation_needs_no_word_on_the_largest_update(
    session: Session, given: dict[str, float | str]
) -> None:
    privacy = RunPrivacy(measure=Measure.SECURE_AGGREGATION)
    strategy, _ = planning.planned(session, RunPlan(privacy=privacy, min_sites=3, strategy_parameters=given))
    assert strategy.norm_limit == 0
    with pytest.raises(UsageError, match="set the largest update to 0"):
        planning.planned(session, RunPlan(privacy=privacy, min_sites=3, strategy_parameters={"norm_limit": 5}))
