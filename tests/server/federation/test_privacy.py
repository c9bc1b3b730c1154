"""Privacy as it is chosen before launch: what it asks of nodes and recipe, and what noise at the centre spends."""

from pathlib import Path

import pytest
from opacus.accountants.rdp import RDPAccountant
from safetensors.numpy import load
from sqlmodel import Session

import server.registry.service as registry
from server.federation import checkpoints, service
from server.federation.fleet import Answer, Ask
from server.federation.privacy import Measure, RunPrivacy, central_epsilon, central_noise, choose
from server.federation.rounds import conduct
from server.federation.schemas import RunPlan
from server.federation.start import start_tensors
from server.federation.states import SiteState
from server.federation.strategies.registry import StrategyName
from server.models import Hospital, Run
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import HematovisionError, UsageError
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratory
from shared.contracts.privacy import ModelPrivacy, Privacy, PrivacyKind, PrivacySpent, PrivacyUnit
from shared.contracts.training import (
    Balance,
    CalibrationSummary,
    EvaluateReply,
    EvaluateRequest,
    FinderMetrics,
    Recipe,
    Refusal,
    TrainReply,
    TrainRequest,
)
from tests.server.federation.fleet import RECEIVED, RECIPE, MemoryFleet, Site, new_run, says, trains
from tests.server.federation.masked import masks
from tests.server.federation.world import COORDINATOR, census, new_database, new_node, node_of

DP_SGD = RunPrivacy(measure=Measure.DP_SGD)


def test_choice_becomes_what_nodes_are_asked() -> None:
    chosen = choose("dp-sgd", epsilon="4", delta=None, clip="", unit="patient")
    assert chosen == RunPrivacy(measure=Measure.DP_SGD, epsilon=4.0, unit=PrivacyUnit.PATIENT)
    assert chosen.asked == Privacy(kind=PrivacyKind.DP_SGD, unit=PrivacyUnit.PATIENT, epsilon=4.0, delta=1e-5, clip=1.0)
    assert choose("none").asked is None
    assert choose("central-dp", epsilon=2).asked is None


@pytest.mark.parametrize(
    ("measure", "given", "problem"),
    [
        ("none", {"epsilon": 8.0}, "Without noise there is no epsilon"),
        ("dp-sgd", {"epsilon": "much"}, "epsilon"),
        ("dp-sgd", {"epsilon": 0}, "epsilon"),
        ("dp-sgd", {"delta": 0.5}, "delta"),
        ("central-dp", {"unit": "patient"}, "dp-sgd only"),
        ("magic", {}, "measure"),
    ],
)
def test_wrong_choice_is_told(measure: str, given: dict[str, str | float], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(measure, **given)
    assert problem in caught.value.message


@pytest.mark.parametrize(("noise", "rounds"), [(1.2, 3), (5.0, 40), (0.7, 1)])
def test_central_noise_is_accounted_as_opacus_does(noise: float, rounds: int) -> None:
    accountant = RDPAccountant()
    accountant.history = [(noise, 1.0, rounds)]
    assert central_epsilon(noise, rounds, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=0.01)


def test_central_noise_lasts_for_all_rounds_and_not_one_more() -> None:
    noise = central_noise(8.0, 10, 1e-5)
    assert 7.9 < central_epsilon(noise, 10, 1e-5) <= 8.0 < central_epsilon(noise, 11, 1e-5)
    with pytest.raises(UsageError):
        central_noise(1e-4, 100, 1e-5)


@pytest.fixture
def session() -> Session:
    database = new_database(hospitals=tuple(f"h{number}" for number in range(4)))
    session = Session(database.engine)
    service.store_census(session, node_of("h0"), census(neutrophil=90, lymphocyte=80))
    session.flush()
    return session


def _launched(session: Session, plan: RunPlan) -> Run:
    return session.get_one(Run, service.start_run(session, COORDINATOR, plan))


def test_private_run_starts_from_a_recipe_of_its_own(session: Session) -> None:
    run = _launched(session, RunPlan(privacy=DP_SGD, recipe={"batch_size": 128}))
    recipe = Recipe.model_validate(run.recipe)
    assert (recipe.balance, recipe.head_epochs, recipe.batch_size) == (Balance.NONE, 0, 128)
    view = service.run_view(session, COORDINATOR, run.id)
    assert view.privacy == DP_SGD
    assert view.events[0].text.endswith("FedAvg, dp-sgd (unit image, ε 8, δ 1e-05, clip 1)")


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (RunPlan(privacy=DP_SGD, recipe={"balance": "sampler"}), "balance must be none"),
        (RunPlan(privacy=DP_SGD, recipe={"patience": 3}), "patience must be 0"),
        (RunPlan(privacy=DP_SGD, strategy=StrategyName.FEDPROX), "FedProx's pull"),
        (RunPlan(privacy=RunPrivacy(measure=Measure.CENTRAL_DP)), "needs 20 of them"),
        (
            RunPlan(
                privacy=RunPrivacy(measure=Measure.CENTRAL_DP, epsilon=1e-4), strategy_parameters={"norm_limit": 0}
            ),
            "needs 20 of them",
        ),
    ],
)
def test_what_does_not_go_together_is_not_launched(session: Session, plan: RunPlan, problem: str) -> None:
    with pytest.raises(HematovisionError) as caught:
        service.start_run(session, COORDINATOR, plan)
    assert problem in caught.value.message


def test_balance_none_and_patience_0_may_be_said(session: Session) -> None:
    said: dict[str, str | int | float | None] = {"balance": "none", "patience": 0, "proximal_mu": 0}
    assert _launched(session, RunPlan(privacy=DP_SGD, recipe=said)).privacy["measure"] == "dp-sgd"


def _noisy(node_id: int, *, epsilon: float | None, delta: float = 1e-5, unit: PrivacyUnit = PrivacyUnit.IMAGE) -> Site:
    """A site that trains as asked; without ``epsilon`` as older software, that knows no noise."""
    trained = trains(node_id, step=1.0)

    def site(ask: Ask) -> Answer | None:
        answer = trained(ask)
        if answer is None or epsilon is None:
            return answer
        spent = PrivacySpent(unit=unit, epsilon=epsilon, delta=delta)
        reply = TrainReply.model_validate_json(answer.reply).model_copy(update={"train_loss": None, "privacy": spent})
        return Answer(node_id, reply.model_dump_json(), answer.tensors)

    return site


def test_noise_is_asked_of_every_node_and_what_is_spent_is_kept(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=1, privacy=DP_SGD)
    fleet = MemoryFleet({1: _noisy(1, epsilon=2.25), 2: _noisy(2, epsilon=None)})
    with pytest.raises(HematovisionError):  # nobody evaluates
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    assert {
        ask.request.privacy for _, _, ask in fleet.asked if isinstance(ask.request, TrainRequest | EvaluateRequest)
    } == {DP_SGD.asked}
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    north, south = view.round_views[0].sites
    assert (north.epsilon, north.train_loss, north.state) == (2.25, None, SiteState.REPLIED)
    assert (south.epsilon, south.state) == (None, SiteState.REFUSED)
    assert "without the noise that was asked for" in (south.reason or "")
    assert any(event.text.endswith("ε 2.25 spent") for event in view.events)


@pytest.mark.parametrize(
    ("epsilon", "delta", "unit", "state"),
    [
        (8.0, 1e-5, PrivacyUnit.PATIENT, SiteState.REPLIED),
        (8.01, 1e-5, PrivacyUnit.PATIENT, SiteState.REFUSED),
        (2.0, 1e-4, PrivacyUnit.PATIENT, SiteState.REFUSED),
        (2.0, 1e-5, PrivacyUnit.IMAGE, SiteState.REFUSED),
    ],
)
def test_an_answer_that_does_not_keep_the_runs_promise_is_not_averaged(
    runtime: Runtime, epsilon: float, delta: float, unit: PrivacyUnit, state: SiteState
) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=1, privacy=DP_SGD.model_copy(update={"unit": PrivacyUnit.PATIENT}))
    site = _noisy(2, epsilon=epsilon, delta=delta, unit=unit)
    good = _noisy(1, epsilon=2.0, unit=PrivacyUnit.PATIENT)
    with pytest.raises(HematovisionError):  # nobody evaluates
        conduct(runtime, run_id, MemoryFleet({1: good, 2: site}), flower_run_id="7", breath_seconds=0)
    with runtime.database.session(read_only=True) as session:
        south = service.run_view(session, COORDINATOR, run_id).round_views[0].sites[1]
    assert south.state is state
    assert ("not what the run promises" in (south.reason or "")) is (state is SiteState.REFUSED)


@pytest.mark.parametrize("measure", list(Measure))
def test_a_version_of_a_private_run_carries_no_hospitals_cells(
    runtime: Runtime, measure: Measure, tmp_path: Path
) -> None:
    secure = measure is Measure.SECURE_AGGREGATION  # which needs a third hospital
    with runtime.database.session() as session:
        if secure:
            session.add(Hospital(id="west", name="West Hospital"))
            session.flush()
            session.add(new_node("west", flower_node_id="3"))
        service.store_census(session, node_of("north"), census(neutrophil=90, lymphocyte=80))
    privacy = RunPrivacy(measure=measure, clip=1e-3)
    run_id = new_run(runtime, rounds=1, tensors=start_tensors(runtime, RECIPE).tensors, privacy=privacy)
    seen = KnownLaboratory(dye_of_cells=(0.5, 2.0))
    told = EvaluateReply(
        candidate=RECEIVED, current=None, calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
        laboratory=seen, seconds=0.1, boxes=30,
        finder=FinderMetrics(fields=3, cells=30, found=29, extra=1, plain_found=25, plain_extra=2),
    )  # fmt: skip

    def evaluates(node_id: int) -> Site:
        trained = _noisy(node_id, epsilon=2.0) if measure is Measure.DP_SGD else trains(node_id, step=0.0)

        def site(ask: Ask) -> Answer | None:
            return trained(ask) or Answer(node_id, told.model_dump_json(), b"")

        return masks(node_id, tmp_path / str(node_id), site) if secure else site

    sites = {node_id: evaluates(node_id) for node_id in ((1, 2, 3) if secure else (1, 2))}
    version = conduct(runtime, run_id, MemoryFleet(sites), flower_run_id="7", breath_seconds=0)
    assert version is not None
    with runtime.database.session(read_only=True) as session:
        card = registry.model_view(session, COORDINATOR, version).card
    hidden = secure or measure is Measure.CENTRAL_DP
    assert sorted(card.sites) == ["north", "south", "west"][: len(sites)]
    assert ({one.name for one in card.artefacts} >= {KNOWN_FILE}) is not hidden
    promise = {  # of noise; masks hide updates, and nothing of the model
        Measure.DP_SGD: ModelPrivacy(measure="dp-sgd", unit=PrivacyUnit.IMAGE, epsilon=8.0, delta=1e-5),
        Measure.CENTRAL_DP: ModelPrivacy(
            measure="central-dp",
            unit="hospital",
            epsilon=central_epsilon(central_noise(8.0, 1, 1e-5), 1, 1e-5),
            delta=1e-5,
        ),
    }
    assert card.privacy == promise.get(measure)
    assert (b"privacy" in canonical_bytes(card)) is (measure in promise)
    told_of = [len(rows) for rows in (card.examples, card.cells, card.boxes, card.finders)]
    cells = 1 if measure is Measure.NONE else 0
    assert told_of == ([0, 0, 0, 0] if hidden else [2, cells, 2, 2])


def test_noise_at_the_centre_is_in_the_model_and_what_it_spends_in_the_run(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, privacy=RunPrivacy(measure=Measure.CENTRAL_DP))
    with pytest.raises(HematovisionError):
        conduct(
            runtime, run_id, MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)}), flower_run_id="7",
            breath_seconds=0,
        )  # fmt: skip
    learnt = load(checkpoints.load(runtime.store, run_id, 1))["w"]
    assert len(set(learnt.ravel().tolist())) == 4  # alike before the noise
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    spent = central_epsilon(central_noise(8.0, 1, 1e-5), 1, 1e-5)
    assert view.epsilon == view.round_views[0].epsilon == pytest.approx(spent)
    assert 7.9 < spent <= 8.0
    assert any(event.text.startswith(f"Noise at the centre, 1 round: ε {spent:.2f}") for event in view.events)


def test_round_that_failed_is_not_said_to_have_spent_anything(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, privacy=RunPrivacy(measure=Measure.CENTRAL_DP))
    refuses = says(2, Refusal(code="policy_refused", reason="Not today.").model_dump_json())
    with pytest.raises(HematovisionError, match="Only 1 of 2"):
        conduct(runtime, run_id, MemoryFleet({1: trains(1, step=1.0), 2: refuses}), flower_run_id="7", breath_seconds=0)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    assert view.epsilon is None
    assert not any("spent" in event.text for event in view.events)
