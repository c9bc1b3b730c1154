"""Secure aggregation over a fleet in memory: the sum, who is lost at which stage, and what the centre gets to see."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from server.federation import checkpoints, service
from server.federation.fleet import Answer, Ask
from server.federation.masked_round import neighbours
from server.federation.privacy import Measure, RunPrivacy
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.states import SiteState
from server.federation.strategies.registry import FedAdamParameters, FedAvgParameters, Parameters
from server.federation.strategies.tensors import Tensors
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError
from shared.contracts.masking import CLIPPING, LEVELS, threshold
from tests.server.federation.fleet import MemoryFleet, Site, new_run, trains
from tests.server.federation.masked import Steps, masks
from tests.server.federation.world import COORDINATOR, new_centre

HOSPITALS = ("east", "north", "south", "west", "ward")
SECURE = RunPrivacy(measure=Measure.SECURE_AGGREGATION)
BARE = FedAvgParameters(norm_limit=0)
STEP = 2 * CLIPPING / LEVELS


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with new_centre(tmp_path, HOSPITALS) as centre:
        yield centre


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Runtime]:
    with new_centre(tmp_path, HOSPITALS[:3]) as centre:
        yield centre


def _run(runtime: Runtime, *, min_sites: int, tensors: Tensors | None = None, strategy: Parameters = BARE) -> str:
    return new_run(runtime, rounds=1, min_sites=min_sites, privacy=SECURE, strategy=strategy, tensors=tensors)


def _conduct(runtime: Runtime, run_id: str, sites: dict[int, Site]) -> tuple[MemoryFleet, str, RunView]:
    fleet = MemoryFleet(sites)
    with pytest.raises(HematovisionError) as caught:
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    with runtime.database.session(read_only=True) as session:
        return fleet, caught.value.message, service.run_view(session, COORDINATOR, run_id)


def _sites(tmp_path: Path, *lost: tuple[int, str], count: int = 5) -> dict[int, Site]:
    """Return sites whose steps are 1, 2, …; each of ``lost`` is silent from a kind of request on."""

    def steps(node: int) -> Steps:
        order = ["masking-keys", "masking-shares", "train", "masking-unmask"]
        gone = {kind for one, first in lost if one == node for kind in order[order.index(first) :]}
        return lambda kind: kind not in gone

    return {
        node: masks(node, tmp_path / str(node), trains(node, step=float(node) / 4), answers=steps(node))
        for node in range(1, count + 1)
    }


def _value(runtime: Runtime, run_id: str) -> float:
    return float(load(checkpoints.load(runtime.store, run_id, 1))["w"][0, 0])


@pytest.mark.parametrize(
    ("lost", "mean"),
    [
        ((), 3 / 4),
        (((2, "masking-keys"),), 13 / 4 / 4),
        (((2, "masking-shares"),), 13 / 4 / 4),
        (((2, "train"),), 13 / 4 / 4),
        (((2, "masking-unmask"),), 3 / 4),
    ],
)
def test_sum_is_unmasked_whenever_one_of_five_is_lost(
    runtime: Runtime, tmp_path: Path, lost: tuple[tuple[int, str], ...], mean: float
) -> None:
    run_id = _run(runtime, min_sites=3)
    _, problem, view = _conduct(runtime, run_id, _sites(tmp_path, *lost))
    assert problem.startswith("No hospital evaluated")  # the round itself is whole
    assert _value(runtime, run_id) == pytest.approx(mean, abs=STEP)
    states = {site.hospital_id: site.state for site in view.round_views[0].sites}
    gone = {HOSPITALS[node - 1] for node, kind in lost if kind != "masking-unmask"}
    assert {name for name, state in states.items() if state is SiteState.MISSING} == gone
    assert sum(state is SiteState.REPLIED for state in states.values()) == 5 - len(gone)


def test_below_the_threshold_nothing_is_opened_and_the_round_is_played_again(runtime: Runtime, tmp_path: Path) -> None:
    run_id = _run(runtime, min_sites=3)
    fleet, problem, view = _conduct(runtime, run_id, _sites(tmp_path, (1, "train"), (2, "train")))
    assert problem.startswith("3 hospitals sent masked updates in round 1, secure aggregation needs 4; nothing of")
    assert runtime.store.head(checkpoints.key(run_id, 1)) is None
    assert not [ask for _, _, ask in fleet.asked if ask.request.kind == "masking-unmask"]
    assert [line.text for line in view.events if "played again (1 of 1)" in line.text]
    assert len({ask.request.exchange for _, _, ask in fleet.asked if ask.request.kind == "masking-keys"}) == 2


def test_hospital_that_comes_back_takes_part_in_the_round_that_is_played_again(trio: Runtime, tmp_path: Path) -> None:
    run_id = _run(trio, min_sites=3)
    tries: list[str] = []
    sites = _sites(tmp_path, count=3)
    whole = sites[3]

    def once(ask: Ask) -> Answer | None:
        if ask.request.kind == "train":
            tries.append(ask.request.kind)
        return None if ask.request.kind == "train" and len(tries) == 1 else whole(ask)

    _conduct(trio, run_id, {**sites, 3: once})
    assert len(tries) == 2
    assert _value(trio, run_id) == pytest.approx(2 / 4, abs=STEP)


def test_no_update_and_no_loss_of_a_hospital_reach_the_centre(trio: Runtime, tmp_path: Path) -> None:
    values = np.zeros((64, 64), np.float32)
    run_id = _run(trio, min_sites=3, tensors={"w": values})
    said: dict[int, bytes] = {}
    sites = _sites(tmp_path, count=3)

    def heard(node: int) -> Site:
        def site(ask: Ask) -> Answer | None:
            answer = sites[node](ask)
            if answer is not None and ask.request.kind == "train":
                said[node] = answer.tensors
            return answer

        return site

    _conduct(trio, run_id, {node: heard(node) for node in sites})
    assert _value(trio, run_id) == pytest.approx(2 / 4, abs=STEP)
    for body in said.values():
        vector = np.frombuffer(body, "<u4")
        assert vector.size == 2 + values.size
        # Every value was the same before the masks: now they are spread over all of the modulus.
        counts = np.histogram(vector, bins=8, range=(0, 2**32))[0]
        assert counts.min() > vector.size / 8 / 2
    pair = np.frombuffer(said[1], "<u4") - np.frombuffer(said[2], "<u4")
    assert len(np.unique(pair)) > vector.size / 2


def test_quantisation_error_of_the_mean_is_below_one_step(trio: Runtime, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    start = {"b": random.normal(0, 0.1, 500).astype(np.float16), "finder.w": np.zeros((2, 3), np.float16)}
    changes = [
        {name: random.normal(0, 0.05, array.shape).astype(np.float16) for name, array in start.items()}
        for _ in range(3)
    ]
    run_id = _run(trio, min_sites=3, tensors={name: array.astype(np.float32) for name, array in start.items()})

    def site(node: int) -> Site:
        def train(ask: Ask) -> Answer | None:
            answer = trains(node, step=0.0)(ask)
            if answer is None:
                return None
            taught = node == 2  # the others' finders stay as they were sent
            new = {
                name: array + (changes[node - 1][name] if name == "b" or taught else np.float16(0))
                for name, array in start.items()
            }
            reply = answer.reply.replace('"boxes":0', f'"boxes":{9 if taught else 0}')
            return Answer(node, reply, bytes(save(new)))

        return masks(node, tmp_path / str(node), train)

    _conduct(trio, run_id, {node: site(node) for node in (1, 2, 3)})
    found = load(checkpoints.load(trio.store, run_id, 1))
    exact = np.mean([(start["b"] + one["b"]).astype(np.float64) for one in changes], axis=0)
    assert np.abs(found["b"] - exact).max() < STEP + 1e-6
    assert np.abs(found["finder.w"] - changes[1]["finder.w"].astype(np.float64)).max() < STEP + 1e-6


def test_server_optimisers_work_on_the_sum(trio: Runtime, tmp_path: Path) -> None:
    run_id = _run(trio, min_sites=3, strategy=FedAdamParameters(norm_limit=0))
    _conduct(trio, run_id, _sites(tmp_path, count=3))
    assert _value(trio, run_id) > 0
    assert any(name.startswith("m/") for name in checkpoints.load_state(trio.store, run_id, 1))


def test_wrong_share_is_noticed_rather_than_made_a_model(trio: Runtime, tmp_path: Path) -> None:
    run_id = _run(trio, min_sites=3)
    sites = _sites(tmp_path, count=3)

    def lies(ask: Ask) -> Answer | None:
        answer = sites[2](ask)
        if answer is not None and ask.request.kind == "train":
            return Answer(2, answer.reply, bytes(4) * (len(answer.tensors) // 4))
        return answer

    _, problem, _ = _conduct(trio, run_id, {**sites, 2: lies})
    assert problem.startswith("The masks do not come off")
    assert trio.store.head(checkpoints.key(run_id, 1)) is None


def test_neighbours_are_mutual_and_bounded() -> None:
    near = neighbours(list(range(100)))
    assert {len(peers) for peers in near.values()} == {31}
    assert all(node in near[peer] for node, peers in near.items() for peer in peers)
    assert neighbours([5, 6, 7]) == {node: {5, 6, 7} for node in (5, 6, 7)}
    assert [threshold(count) for count in (3, 4, 5, 7, 31)] == [3, 3, 4, 5, 21]
