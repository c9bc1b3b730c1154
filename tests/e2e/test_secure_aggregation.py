"""Secure aggregation over real Flower processes: four hospitals, one of which is lost after it has shared keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load

from client_node.cases.ledger import Ledger
from deploy.services.object_store import StoreAddress
from server.federation import checkpoints, service, tasks
from server.federation.privacy import Measure, RunPrivacy
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState, SiteState
from shared.contracts.masking import CLIPPING, LEVELS
from shared.processes import Service
from tests.e2e.flower_world import HEAD_BIAS, Centre, TestHospital, running_centre, trainers, wait_for
from tests.server.federation.world import COORDINATOR, census, node_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.servers,
    # flwr 1.41 names a pattern class that pathspec has renamed.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    # … and configures alembic in its older way.
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
]
STEPS = {"north": 1.0, "south": 2.0, "east": 3.0, "west": 4.0}
LOST = "west"


@dataclass
class World:
    """A centre with four hospitals and their SuperNodes."""

    centre: Centre
    hospitals: dict[str, TestHospital]
    nodes: dict[str, Service]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, object_store: StoreAddress) -> Iterator[World]:
    with running_centre(tmp_path_factory.mktemp("masked"), object_store, {}) as centre:
        hospitals = {name: centre.hospital(name, step=step, examples=20) for name, step in STEPS.items()}
        tasks.welcome(centre.runtime, {})
        with centre.runtime.database.session() as session:
            for name in STEPS:
                service.store_census(session, node_of(name), census(neutrophil=30, lymphocyte=30))
        with trainers(*hospitals.values()):
            nodes = {name: centre.start_node(hospital) for name, hospital in hospitals.items()}
            yield World(centre, hospitals, nodes)


def _bias(body: bytes) -> NDArray[np.float64]:
    return next(array for array in load(body).values() if array.shape == HEAD_BIAS).astype(np.float64)


def test_hospital_lost_after_sharing_keys_does_not_spoil_the_sum(world: World, tmp_path: Path) -> None:
    runtime = world.centre.runtime
    plan = RunPlan(
        rounds=1,
        local_epochs=1,
        min_sites=3,
        round_deadline_seconds=240,
        strategy_parameters={"norm_limit": 0},
        privacy=RunPrivacy(measure=Measure.SECURE_AGGREGATION),
    )
    # It is asked to train, so it has shared keys with the others: their updates carry masks that only it and they know.
    world.hospitals[LOST].before_reply = world.nodes[LOST].kill
    with runtime.database.session() as session:
        run_id = service.start_run(session, COORDINATOR, plan)
    tasks.launch(runtime, {"run_id": run_id})

    def view() -> RunView:
        with runtime.database.session(read_only=True) as session:
            return service.run_view(session, COORDINATOR, run_id)

    wait_for(lambda: bool(view().round_views and view().round_views[0].ended_at) or view().state.over, 420, "round 1")
    told = view()
    assert told.round_views, [line.text for line in told.events]
    assert told.round_views[0].ended_at, [line.text for line in told.events]
    states = {site.hospital_id: site.state for site in told.round_views[0].sites}
    assert {name for name, state in states.items() if state is SiteState.REPLIED} == set(STEPS) - {LOST}
    assert world.hospitals[LOST].seen, "it was lost before it was asked to train"

    before, after = (_bias(checkpoints.load(runtime.store, run_id, number)) for number in (0, 1))
    mean = np.mean([step for name, step in STEPS.items() if name != LOST])
    # The hospitals' own fp16 arithmetic, and one step of the quantisation.
    assert np.abs(after - before - mean).max() < 2e-3 + 2 * CLIPPING / LEVELS

    values = sum(array.size for array in load(checkpoints.load(runtime.store, run_id, 0)).values())
    for name in set(STEPS) - {LOST}:
        rows = [entry for entry in Ledger(world.hospitals[name].home).entries() if entry.subject == run_id]
        kinds = [(entry.kind, entry.what) for entry in rows]
        assert kinds[:4] == [
            ("answer", "masking-keys"),
            ("answer", "masking-shares"),
            ("update", "round 1"),
            ("answer", "masking-unmask"),
        ]
        # Nothing of the clear update's size left: four bytes a value, not two.
        assert 4 * values < rows[2].size < 4 * values + 4096
        assert not (world.hospitals[name].home / "masking.json").exists()
    wait_for(lambda: view().state.over, 420, "the run's end")
    assert view().state is RunState.COMPLETED, view().problem
