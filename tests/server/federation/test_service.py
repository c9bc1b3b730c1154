"""Who may launch and see runs, and what a run is made of."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session, select

import server.audit.service as audit
from server.accounts.roles import Role
from server.federation import planning, repository, service
from server.federation.recipe import Value, as_chosen
from server.federation.schemas import RunPlan
from server.federation.states import RunState
from server.federation.strategies.registry import StrategyName
from server.models import AuditEntry, OutboxEntry, RoundRecord, Run, SiteRound
from server.models.base import utc_now
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError, NothingToDoError, UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Balance
from tests.server.federation.world import COORDINATOR, census, new_database, node_of, person


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database().session() as session:
        yield session


def _census(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=15))
    service.store_census(session, node_of("south"), census(lymphocyte=15, basophil=19))


def _launch(session: Session) -> str:
    _census(session)
    return service.start_run(session, COORDINATOR, RunPlan(rounds=2, local_epochs=1))


def test_launch_takes_the_classes_that_the_censuses_hold(session: Session) -> None:
    run_id = _launch(session)
    view = service.run_view(session, COORDINATOR, run_id)
    assert view.classes == [CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE]
    assert (view.state, view.rounds, view.local_epochs) == (RunState.QUEUED, 2, 1)
    entries = session.exec(select(OutboxEntry)).all()
    assert [(entry.kind, entry.payload) for entry in entries] == [("federation.launch", {"run_id": run_id})]


def test_launch_keeps_the_strategy_and_audits_it(session: Session) -> None:
    _census(session)
    parameters: dict[str, float | str] = {"server_learning_rate": "0.05", "norm_limit": 0}
    plan = RunPlan(strategy=StrategyName.FEDADAM, strategy_parameters=parameters)
    run_id = service.start_run(session, COORDINATOR, plan)
    whole = {"norm_limit": 0.0, "server_learning_rate": 0.05, "beta_1": 0.5, "beta_2": 0.99, "tau": 1e-3}
    run = session.get_one(Run, run_id)
    assert (run.strategy, run.strategy_parameters) == ("fedadam", whole)
    [entry] = session.exec(select(AuditEntry)).all()
    assert (entry.data["strategy"], entry.data["strategy_parameters"]) == ("fedadam", whole)
    view = service.run_view(session, COORDINATOR, run_id)
    assert (view.strategy_title, view.strategy_parameters["Server learning rate"]) == ("FedAdam", 0.05)
    assert view.events[0].text.endswith("2 classes, FedAdam")


def test_fedprox_puts_its_pull_into_what_the_nodes_are_asked(session: Session) -> None:
    _census(session)
    plan = RunPlan(strategy=StrategyName.FEDPROX, strategy_parameters={"proximal_mu": 0.2})
    run = session.get_one(Run, service.start_run(session, COORDINATOR, plan))
    assert run.recipe["proximal_mu"] == 0.2


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (RunPlan(strategy=StrategyName.TRIMMED_MEAN, min_sites=3), "needs 3 hospitals in a round; 2 have an approved"),
        (RunPlan(strategy=StrategyName.MULTIKRUM), "needs 5 hospitals in a round; 2 have an approved"),
        (RunPlan(strategy_parameters={"tau": 1.0}), "FedAvg has no parameter tau"),
        (RunPlan(strategy=StrategyName.FEDYOGI, strategy_parameters={"beta_2": 1.5}), "Beta 2: Input should be less"),
    ],
)
def test_what_does_not_go_together_is_not_launched(session: Session, plan: RunPlan, sentence: str) -> None:
    _census(session)
    with pytest.raises(UsageError, match=sentence):
        service.start_run(session, COORDINATOR, plan)
    assert not session.exec(select(Run)).all()
    assert not session.exec(select(OutboxEntry)).all()


def test_offered_strategies_begin_with_the_default() -> None:
    offered = service.offered_strategies()
    assert [one.name for one in offered] == list(StrategyName)
    assert offered[0].name == RunPlan().strategy
    krum = next(one for one in offered if one.name is StrategyName.MULTIKRUM)
    assert krum.least_sites == 5
    assert [(entry.name, entry.default, entry.whole) for entry in krum.parameters] == [
        ("byzantine_sites", 1, True),
        ("norm_limit", 10.0, False),
    ]


def test_launch_records_the_recipe_in_the_run_and_in_the_audit(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
    chosen: dict[str, Value] = {"backbone": "resnet50", "frozen_stages": 2, "balance": "focal", "ema": 0.5}
    run_id = service.start_run(session, COORDINATOR, RunPlan(recipe=chosen, local_epochs=4))
    recipe = service.run_view(session, COORDINATOR, run_id).recipe
    assert (recipe.backbone, recipe.frozen_stages, recipe.balance, recipe.ema, recipe.local_epochs) == (
        "resnet50", 2, Balance.FOCAL, 0.5, 4,
    )  # fmt: skip
    [entry] = audit.search(session, person(Role.AUDITOR), subject=f"run:{run_id}")
    assert entry.data["recipe"] == as_chosen(recipe)


def test_a_wrong_recipe_launches_nothing(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
    with pytest.raises(UsageError, match="learning_rate"):
        service.start_run(session, COORDINATOR, RunPlan(recipe={"learning_rate": 3}))
    assert service.list_runs(session, COORDINATOR) == []


def test_subclasses_count_into_a_class_that_some_hospital_holds_as_a_whole(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=5, lymphocyte=30))
    service.store_census(session, node_of("south"), census(band_neutrophil=20, promyelocyte=25))
    assert planning.trainable_classes(session) == [CellClass.NEUTROPHIL, CellClass.PROMYELOCYTE, CellClass.LYMPHOCYTE]


def test_launch_without_labels_says_so(session: Session) -> None:
    with pytest.raises(NothingToDoError, match="import labelled images"):
        service.start_run(session, COORDINATOR, RunPlan())


def test_second_launch_waits_for_the_first(session: Session) -> None:
    _launch(session)
    with pytest.raises(ConflictError):
        service.start_run(session, COORDINATOR, RunPlan())


@pytest.mark.parametrize("role", [Role.HEMATOLOGIST, Role.HOSPITAL_IT, Role.AUDITOR])
def test_only_coordinators_launch_and_stop(session: Session, role: Role) -> None:
    run_id = _launch(session)
    for action in (
        lambda: service.start_run(session, person(role), RunPlan()),
        lambda: service.request_stop(session, person(role), run_id),
    ):
        with pytest.raises(ForbiddenError):
            action()


def test_hospital_it_sees_its_own_hospital_only(session: Session) -> None:
    run_id = _launch(session)
    session.add(RoundRecord(run_id=run_id, round=1, started_at=utc_now(), sampled=2))
    session.flush()
    for name in ("north", "south"):
        session.add(SiteRound(run_id=run_id, round=1, hospital_id=name, accuracy=0.5))
    session.flush()
    clerk = person(Role.HOSPITAL_IT, "north")
    view = service.run_view(session, clerk, run_id)
    assert [site.hospital_id for site in view.round_views[0].sites] == ["north"]
    assert [site.hospital_id for site in service.census(session, clerk)] == ["north"]
    assert len(service.run_view(session, COORDINATOR, run_id).round_views[0].sites) == 2


def test_census_replaces_the_one_before(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=5))
    service.store_census(session, node_of("north"), census(neutrophil=9))
    [site] = service.census(session, COORDINATOR)
    assert [row.train for row in site.census.rows] == [9]
    assert (site.hospital_name, site.online) == ("North Hospital", False)


def test_stop_is_asked_once_and_never_after_the_end(session: Session) -> None:
    run_id = _launch(session)
    service.request_stop(session, COORDINATOR, run_id)
    service.request_stop(session, COORDINATOR, run_id)
    kinds = [entry.kind for entry in session.exec(select(OutboxEntry)).all()]
    assert kinds == ["federation.launch", "federation.stop"]
    service.fail(session, run_id, "whatever")
    assert service.run_view(session, COORDINATOR, run_id).state is RunState.STOPPED
    with pytest.raises(ConflictError):
        service.request_stop(session, COORDINATOR, run_id)


def test_ended_run_keeps_its_first_end(session: Session) -> None:
    run_id = _launch(session)
    service.fail(session, run_id, "first")
    service.fail(session, run_id, "second")
    run = repository.get(session, run_id)
    assert run is not None
    assert (run.state, run.problem) == (RunState.FAILED, "first")


def test_events_resume_after_the_last_seen_line(session: Session) -> None:
    run_id = _launch(session)
    [first] = service.events_since(session, run_id, 0)
    service.write_event(session, run_id, "round", "Round 1 starts")
    assert [event.text for event in service.events_since(session, run_id, first.id)] == ["Round 1 starts"]


def test_unknown_run_is_not_found(session: Session) -> None:
    with pytest.raises(NotFoundError):
        service.run_view(session, COORDINATOR, "nope")
