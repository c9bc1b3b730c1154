"""Asking before a launch: who would take part and why not, who is away, and how long a round would be."""

from datetime import timedelta

import pytest
from sqlmodel import Session, select

from server.accounts.roles import Role
from server.federation import dry_run, repository, service
from server.federation.fleet import Answer
from server.federation.forecast import DryRunView
from server.federation.privacy import Measure, RunPrivacy
from server.federation.recipe import make_recipe
from server.federation.rehearsal import rehearse
from server.federation.schemas import RunPlan
from server.federation.states import RunState, SiteState
from server.models import AuditEntry, DryRun, Node, OutboxEntry, RoundRecord, Run, SiteRound
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.enrolment import PACKED_PROTOCOL
from shared.contracts.errors import ConflictError, ForbiddenError, NothingToDoError, RunFailedError
from shared.contracts.training import DryRunReply, DryRunRequest, Refusal
from tests.server.federation.fleet import RECIPE, MemoryFleet, Site, says
from tests.server.federation.world import COORDINATOR, census, node_of, person, speaks

PLAN = RunPlan(rounds=4, local_epochs=2)


def _census(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
    service.store_census(session, node_of("south"), census(neutrophil=20, lymphocyte=30))


def _asked(runtime: Runtime) -> str:
    """Return a question that the worker has prepared."""
    with runtime.database.session() as session:
        _census(session)
        key = dry_run.start(session, COORDINATOR, PLAN)
        row = session.get_one(DryRun, key)
        row.base_sha256, row.tensor_bytes = "0" * 64, 1234
    return key


def _view(runtime: Runtime, key: str) -> DryRunView:
    with runtime.database.session(read_only=True) as session:
        return dry_run.view(session, COORDINATOR, key)


def _would(node_id: int, **reply: object) -> Site:
    return says(node_id, DryRunReply.model_validate(reply).model_dump_json())


def _rehearse(runtime: Runtime, key: str, sites: dict[int, Site]) -> MemoryFleet:
    fleet = MemoryFleet(sites)
    rehearse(runtime, key, fleet, flower_run_id="7", gather_seconds=0)
    return fleet


def test_every_hospital_is_asked_the_plan_and_its_answer_shown(runtime: Runtime) -> None:
    key = _asked(runtime)
    reason = "This hospital trains between 20:00-06:00 local time only."
    fleet = _rehearse(
        runtime,
        key,
        {1: _would(1, takes_part=True, examples=55), 2: _would(2, takes_part=False, reason=reason, examples=50)},
    )
    [(_, _, north), (_, _, south)] = fleet.asked
    assert isinstance(north.request, DryRunRequest)
    assert north.request == south.request
    assert (north.request.rounds, north.request.participants, north.request.tensor_bytes) == (4, 2, 1234)
    assert (north.request.recipe.local_epochs, north.tensors) == (2, b"")
    view = _view(runtime, key)
    assert [(site.hospital_name, site.takes_part, site.reason, site.examples) for site in view.sites] == [
        ("North Hospital", True, "", 55),
        ("South Hospital", False, reason, 50),
    ]
    assert (view.ended, view.problem, view.willing, view.enough) == (True, None, 1, False)


@pytest.mark.parametrize(
    ("south", "takes_part", "reason"),
    [
        (says(2, Refusal(code="service_unavailable", reason="No trainer.").model_dump_json()), False, "No trainer."),
        (says(2, "garbage"), False, "cannot be read"),
        (says(2, "", problem="secret detail"), False, "software failed"),
        (lambda _ask: Answer(2, DryRunReply(takes_part=True).model_dump_json(), b"", seal=" "), False, "not signed"),
        (lambda _ask: None, None, "has not answered"),
    ],
)
def test_hospital_that_fails_is_named_with_what_is_wrong(
    runtime: Runtime, south: Site, takes_part: bool | None, reason: str
) -> None:
    key = _asked(runtime)
    _rehearse(runtime, key, {1: _would(1, takes_part=True), 2: south})
    view = _view(runtime, key)
    assert (view.sites[1].takes_part, reason in view.sites[1].reason) == (takes_part, True)
    assert (view.ended, view.willing) == (True, 1)
    assert "secret" not in view.model_dump_json()


@pytest.mark.parametrize(
    ("south", "measure", "size"),
    [
        (PACKED_PROTOCOL, Measure.NONE, 424),
        (1, Measure.NONE, 1234),
        (PACKED_PROTOCOL, Measure.SECURE_AGGREGATION, 1234),
    ],
)
def test_size_is_the_packed_one_where_all_who_are_asked_read_it(
    runtime: Runtime, south: int, measure: Measure, size: int
) -> None:
    speaks(runtime.database, {"north": PACKED_PROTOCOL, "south": south})
    key = _asked(runtime)
    with runtime.database.session() as session:
        plan = PLAN.model_copy(update={"privacy": RunPrivacy(measure=measure)})
        session.get_one(DryRun, key).plan = plan.model_dump(mode="json")
    fleet = _rehearse(runtime, key, {number: _would(number, takes_part=True, examples=5) for number in (1, 2)})
    assert [ask.request.tensor_bytes for _, _, ask in fleet.asked if isinstance(ask.request, DryRunRequest)] == [
        size
    ] * 2


def test_node_that_is_away_is_not_asked_and_last_seen_is_told(runtime: Runtime) -> None:
    key, seen = _asked(runtime), utc_now() - timedelta(hours=3)
    with runtime.database.session() as session:
        session.get_one(Node, "node-north").last_seen_at = utc_now()
        session.get_one(Node, "node-south").last_seen_at = seen
    fleet = _rehearse(runtime, key, {1: _would(1, takes_part=True)})
    assert [ask.request.participants for _, _, ask in fleet.asked if isinstance(ask.request, DryRunRequest)] == [1]
    north, south = _view(runtime, key).sites
    assert (north.online, south.online) == (True, False)
    assert (south.last_seen_at, south.takes_part) == (seen, None)


def test_nobody_connected_is_said(runtime: Runtime) -> None:
    key = _asked(runtime)
    with pytest.raises(RunFailedError):
        _rehearse(runtime, key, {})
    assert _view(runtime, key).problem == "No hospital's node is connected; see the nodes page."


def test_question_is_asked_once(runtime: Runtime) -> None:
    key = _asked(runtime)
    _rehearse(runtime, key, {1: _would(1, takes_part=True), 2: _would(2, takes_part=True)})
    with pytest.raises(ConflictError):
        _rehearse(runtime, key, {1: _would(1, takes_part=False)})
    assert _view(runtime, key).enough


def _past(
    session: Session,
    rounds: list[tuple[float, dict[str, tuple[int, float]]]],
    measure: Measure = Measure.NONE,
    **run: object,
) -> None:
    """Write rounds that ended: their seconds, and hospital → (examples, seconds)."""
    row = Run(
        recipe={**make_recipe(RECIPE.classes, {}).model_dump(mode="json"), "local_epochs": 2, **run},
        privacy=RunPrivacy(measure=measure).model_dump(mode="json"),
        state=RunState.COMPLETED,
        rounds=len(rounds),
        min_sites=1,
        round_deadline_seconds=60,
        created_by="test",
    )
    repository.add(session, row)
    for number, (seconds, sites) in enumerate(rounds, start=1):
        begin = utc_now() - timedelta(days=1) + timedelta(hours=number)
        record = RoundRecord(run_id=row.id, round=number, started_at=begin, sampled=2, seconds=seconds, ended_at=begin)
        repository.add(session, record)
        for name, (examples, took) in sites.items():
            repository.add(
                session,
                SiteRound(
                    run_id=row.id,
                    round=number,
                    hospital_id=name,
                    state=SiteState.REPLIED,
                    examples=examples,
                    seconds=took,
                ),
            )


def test_duration_is_predicted_from_the_sites_own_last_rounds(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        _past(
            session,
            [
                (30.0, {"north": (100, 20.0), "south": (50, 10.0)}),  # 0.1 s a cell and pass, 10 s beyond
                (32.0, {"north": (100, 22.0), "south": (50, 40.0)}),
                (34.0, {"north": (100, 24.0), "south": (50, 30.0)}),
            ],
        )
        for other in ({"backbone": "resnet50"}, {"input_size": 224}, {"frozen_stages": 0}):
            _past(session, [(900.0, {"north": (1, 800.0)})], **other)  # other work tells nothing
        _past(session, [(900.0, {"north": (1, 800.0)})], measure=Measure.DP_SGD)
    key = _asked(runtime)
    _rehearse(runtime, key, {1: _would(1, takes_part=True, examples=200), 2: _would(2, takes_part=True)})
    view = _view(runtime, key)
    north, south = view.sites
    assert north.round_seconds == pytest.approx(0.11 * 200 * 2)
    assert south.round_seconds == pytest.approx(0.3 * 50 * 2)  # cells by its census: 20 and 30
    assert view.round_seconds == pytest.approx(44.0 + 4.0)  # beyond the slowest: 10, 0 and 4 s
    assert view.total_seconds == pytest.approx(4 * 48.0)


def test_duration_is_unknown_where_a_willing_hospital_has_no_past(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        _past(session, [(30.0, {"north": (100, 20.0)})])
    key = _asked(runtime)
    _rehearse(runtime, key, {1: _would(1, takes_part=True, examples=9), 2: _would(2, takes_part=True, examples=9)})
    view = _view(runtime, key)
    assert (view.sites[1].round_seconds, view.round_seconds, view.total_seconds) == (None, None, None)


def test_start_writes_the_question_its_task_and_the_audit(runtime: Runtime) -> None:
    key = _asked(runtime)
    with runtime.database.session(read_only=True) as session:
        entries = session.exec(select(OutboxEntry)).all()
        [line] = session.exec(select(AuditEntry)).all()
    assert [(entry.kind, entry.payload) for entry in entries] == [("federation.dry_run", {"dry_run_id": key})]
    assert (line.subject, line.action) == (f"dry-run:{key}", "federation.dry_run")
    assert (_view(runtime, key).ended, _view(runtime, key).sites[0].takes_part) == (False, None)


def test_one_question_at_a_time_and_none_while_a_run_is_under_way(runtime: Runtime) -> None:
    key = _asked(runtime)
    with runtime.database.session() as session, pytest.raises(ConflictError, match="asked already"):
        dry_run.start(session, COORDINATOR, PLAN)
    with runtime.database.session() as session:
        session.get_one(DryRun, key).created_at = utc_now() - timedelta(minutes=6)
    assert _view(runtime, key).problem == "The question was never asked to its end; see the worker's log."
    with runtime.database.session() as session:
        dry_run.start(session, COORDINATOR, PLAN)
    with runtime.database.session() as session:
        service.start_run(session, COORDINATOR, RunPlan())
        with pytest.raises(ConflictError, match="under way"):
            dry_run.start(session, COORDINATOR, PLAN)


def test_plan_that_could_not_be_launched_is_not_asked(runtime: Runtime) -> None:
    with runtime.database.session() as session, pytest.raises(NothingToDoError, match="import labelled images"):
        dry_run.start(session, COORDINATOR, PLAN)


def test_only_coordinators_ask_and_hospital_it_sees_its_own_line(runtime: Runtime) -> None:
    key = _asked(runtime)
    with runtime.database.session(read_only=True) as session:
        clerk = person(Role.HOSPITAL_IT, "north")
        assert [site.hospital_id for site in dry_run.view(session, clerk, key).sites] == ["north"]
        with pytest.raises(ForbiddenError):
            dry_run.start(session, clerk, PLAN)
        with pytest.raises(ForbiddenError):
            dry_run.view(session, person(Role.HEMATOLOGIST), key)
