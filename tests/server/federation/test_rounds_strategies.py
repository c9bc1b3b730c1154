"""Whole runs of every strategy over five hospitals: what they learn, whom they refuse, how they go on after a kill."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from server.federation import checkpoints, service
from server.federation.fleet import Answer, Ask
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.states import RunState, SiteState
from server.federation.strategies.registry import (
    OFFERED,
    FedAdamParameters,
    FedAvgMParameters,
    FedAvgParameters,
    FedProxParameters,
    FedYogiParameters,
    MultiKrumParameters,
    Parameters,
    TrimmedMeanParameters,
)
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError
from shared.contracts.training import TrainReply, TrainRequest
from tests.server.federation.fleet import RECEIVED, MemoryFleet, Site, new_run, trains
from tests.server.federation.world import COORDINATOR, new_centre

HOSPITALS = ("east", "north", "south", "west", "zoo")
START = {"w": np.zeros((2, 2), np.float32), "finder.w": np.zeros(3, np.float32)}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with new_centre(tmp_path, HOSPITALS) as centre:
        yield centre


def fits(node_id: int, target: float) -> Site:
    """Return a site that moves all values half of the way from what it received to ``target``."""

    def site(ask: Ask) -> Answer | None:
        if not isinstance(ask.request, TrainRequest):
            return None
        moved = {name: (array + (target - array) / 2).astype(np.float16) for name, array in load(ask.tensors).items()}
        reply = TrainReply(
            examples=10, train_loss=0.1, received=RECEIVED, seconds=1.0, manifest_sha256="0" * 64, boxes=5
        )
        return Answer(node_id, reply.model_dump_json(), bytes(save(moved)))

    return site


def _fleet(*targets: float) -> MemoryFleet:
    return MemoryFleet({number: fits(number, target) for number, target in enumerate(targets, start=1)})


def _conduct(runtime: Runtime, run_id: str, fleet: MemoryFleet) -> str:
    with pytest.raises(HematovisionError) as caught:
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    return caught.value.message


def _view(runtime: Runtime, run_id: str) -> RunView:
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def _values(runtime: Runtime, run_id: str, number: int) -> list[float]:
    tensors = load(checkpoints.load(runtime.store, run_id, number))
    return [float(tensors["w"][0, 0]), float(tensors["finder.w"][0])]


@pytest.mark.parametrize(
    ("strategy", "rounds", "within"),
    [
        (FedAvgParameters(), 6, 0.05),
        (FedProxParameters(), 6, 0.05),
        (FedAvgMParameters(), 12, 0.05),
        (FedAdamParameters(server_learning_rate=0.2, beta_1=0.5), 14, 0.1),
        (FedYogiParameters(server_learning_rate=0.1, beta_1=0.5), 14, 0.1),
        (TrimmedMeanParameters(), 6, 0.05),
        (MultiKrumParameters(), 6, 0.1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_run_of_every_strategy_comes_to_where_the_hospitals_agree(
    runtime: Runtime, strategy: Parameters, rounds: int, within: float
) -> None:
    run_id = new_run(runtime, rounds=rounds, min_sites=5, tensors=START, strategy=strategy)
    fleet = _fleet(0.8, 0.9, 1.0, 1.1, 1.2)
    problem = _conduct(runtime, run_id, fleet)
    assert problem.startswith("No hospital evaluated the candidate")
    assert _values(runtime, run_id, rounds) == pytest.approx([1.0, 1.0], abs=within)
    view = _view(runtime, run_id)
    assert (view.rounds_done, view.strategy, view.strategy_title) == (rounds, strategy.name, strategy.title)
    assert view.strategy_parameters["Largest update"] == 10.0
    assert {row.replied for row in view.round_views} == {5}
    asked = {ask.request.recipe.proximal_mu for _, _, ask in fleet.asked if isinstance(ask.request, TrainRequest)}
    assert asked == {0.01 if isinstance(strategy, FedProxParameters) else 0.0}


def test_cases_cover_every_strategy() -> None:
    [mark] = test_run_of_every_strategy_comes_to_where_the_hospitals_agree.pytestmark  # type: ignore[attr-defined]
    assert {type(case[0]) for case in mark.args[1]} == set(OFFERED.values())


@pytest.mark.parametrize("strategy", [TrimmedMeanParameters(norm_limit=0), MultiKrumParameters(norm_limit=0)])
@pytest.mark.parametrize("bad", [-50.0, 60_000.0])
def test_robust_runs_withstand_one_bad_hospital_of_five(runtime: Runtime, strategy: Parameters, bad: float) -> None:
    run_id = new_run(runtime, rounds=8, min_sites=5, tensors=START, strategy=strategy)
    _conduct(runtime, run_id, _fleet(0.95, 1.0, 1.0, 1.05, bad))
    assert _values(runtime, run_id, 8) == pytest.approx([1.0, 1.0], abs=0.05)


def test_coordinator_sees_whom_multikrum_left_out(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=5, tensors=START, strategy=MultiKrumParameters(norm_limit=0))
    _conduct(runtime, run_id, _fleet(1.0, 1.0, 9.0, 1.0, 1.0))
    view = _view(runtime, run_id)
    reasons = {site.hospital_id: (site.state, site.reason) for site in view.round_views[0].sites}
    reason = "Multi-Krum left out its update, which is farthest from the others'."
    assert reasons.pop("south") == (SiteState.REPLIED, reason)
    assert set(reasons.values()) == {(SiteState.REPLIED, None)}
    assert [event.text for event in view.events if event.kind == "site"][-1] == f"south is left out: {reason}"
    assert view.round_views[0].replied == 5


@pytest.mark.parametrize("place", [1, 5])
def test_far_too_large_update_is_refused_and_the_coordinator_sees_why(runtime: Runtime, place: int) -> None:
    run_id = new_run(runtime, rounds=2, min_sites=4, tensors=START)
    targets = [1.0] * 5
    targets[place - 1] = 100.0
    _conduct(runtime, run_id, _fleet(*targets))
    view = _view(runtime, run_id)
    for row in view.round_views:
        bad = row.sites[place - 1]
        assert (bad.state, bad.examples) == (SiteState.REFUSED, None)
        assert "times as large as the median; 10 times are allowed" in (bad.reason or "")
        assert (row.replied, row.bytes_up > 0) == (4, True)
    assert any(event.text.startswith(f"{HOSPITALS[place - 1]} ") and "as large" in event.text for event in view.events)
    assert _values(runtime, run_id, 2) == pytest.approx([0.75, 0.75], abs=0.001)


def test_refused_updates_do_not_count_as_taking_part(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=5, tensors=START)
    problem = _conduct(runtime, run_id, _fleet(1.0, 1.0, 1.0, 1.0, 500.0))
    assert problem.startswith("Only 4 of 5 hospitals took part in round 1, 5 are needed")
    assert _view(runtime, run_id).state is RunState.FAILED
    assert runtime.store.head(checkpoints.key(run_id, 1)) is None


@pytest.mark.parametrize(
    "strategy", [FedAvgMParameters(), FedAdamParameters(), FedYogiParameters()], ids=lambda kind: kind.name
)
def test_killed_server_app_resumes_with_the_same_bits(runtime: Runtime, strategy: Parameters) -> None:
    def cut_in_third(group: str) -> None:
        if group == "3":
            raise KeyboardInterrupt

    targets = (0.5, 1.0, 1.5, 2.0, 2.5)
    straight = new_run(runtime, rounds=5, min_sites=5, tensors=START, strategy=strategy)
    _conduct(runtime, straight, _fleet(*targets))
    killed = new_run(runtime, rounds=5, min_sites=5, tensors=START, strategy=strategy)
    fleet = _fleet(*targets)
    fleet.before = cut_in_third
    with pytest.raises(KeyboardInterrupt):
        conduct(runtime, killed, fleet, flower_run_id="7", breath_seconds=0)
    _conduct(runtime, killed, _fleet(*targets))
    for key in (checkpoints.key, checkpoints.state_key):
        assert runtime.store.get(key(killed, 5)) == runtime.store.get(key(straight, 5))
    state = checkpoints.load_state(runtime.store, killed, 5)
    assert {name.split("/")[0] for name in state} >= {"m", "norm"}
    assert state["m/w"].any()


def test_resumed_run_whose_state_is_gone_ends_with_a_sentence(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=2, min_sites=1, strategy=FedAdamParameters())

    def cut(group: str) -> None:
        if group == "2":
            raise KeyboardInterrupt

    sites = {number: trains(number, step=1.0) for number in range(1, 6)}
    with pytest.raises(KeyboardInterrupt):
        conduct(runtime, run_id, MemoryFleet(sites, before=cut), flower_run_id="7", breath_seconds=0)
    runtime.store.delete(checkpoints.state_key(run_id, 1))
    assert "checkpoint is gone" in _conduct(runtime, run_id, MemoryFleet(sites))


def test_robust_run_leaves_no_updates_behind(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=5, tensors=START, strategy=TrimmedMeanParameters())
    _conduct(runtime, run_id, _fleet(1.0, 1.0, 1.0, 1.0, 1.0))
    assert list((runtime.settings.home / "spool").iterdir()) == []


def test_note_on_the_finder_stands_in_the_log_book(runtime: Runtime) -> None:
    run_id = new_run(runtime, rounds=1, min_sites=5, tensors=START, strategy=TrimmedMeanParameters())
    fleet = MemoryFleet({number: trains(number, step=1.0) for number in range(1, 6)} | {5: fits(5, 2.0)})
    _conduct(runtime, run_id, fleet)
    texts = [event.text for event in _view(runtime, run_id).events]
    assert "The finder stays as it was: Trimmed mean needs 3 hospitals to teach it, not 1." in texts
    assert _values(runtime, run_id, 1) == [1.0, 0.0]
