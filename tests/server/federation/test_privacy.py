"""Privacy as it is chosen before launch: what it asks of the nodes and the recipe, and what noise at the centre spends."""

import pytest
from opacus.accountants.rdp import RDPAccountant
from sqlmodel import Session

from server.federation import service
from server.federation.privacy import Measure, RunPrivacy, central_epsilon, central_noise, choose
from server.federation.schemas import RunPlan
from server.federation.strategies.registry import StrategyName
from server.models import Run
from shared.contracts.errors import HematovisionError, UsageError
from shared.contracts.privacy import Privacy, PrivacyKind, PrivacyUnit
from shared.contracts.training import Balance, Recipe
from tests.server.federation.world import COORDINATOR, census, new_database, node_of

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
