"""Real SuperLink, SuperExec, SuperNodes and relays: a signed run from launch to model, and an app nobody signed."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from safetensors.numpy import load

import server.registry.service as registry
from deploy.services.object_store import StoreAddress
from server.federation import service, tasks
from server.federation.control import open_control, openssh_to_pem
from server.federation.publish import build_app
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from server.models import Node
from server.registry.artefacts import DELTA, artefact_key
from shared.contracts.canonical import canonical_bytes
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from tests.e2e.flower_world import HEAD_BIAS, METRICS, Centre, TestHospital, running_centre, trainers, wait_for
from tests.e2e.rogue_app import OUTPUT
from tests.server.federation.world import COORDINATOR, census, node_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.servers,
    # flwr 1.41 names a pattern class that pathspec has renamed.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    # … and configures alembic in its older way.
    pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning"),
]


@dataclass
class World:
    """A centre with two hospitals, their SuperNodes and trainers running."""

    centre: Centre
    north: TestHospital
    south: TestHospital
    rogue_output: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, object_store: StoreAddress) -> Iterator[World]:
    work = tmp_path_factory.mktemp("flower")
    rogue_output = work / "rogue.txt"
    with running_centre(work, object_store, {OUTPUT: str(rogue_output)}) as centre:
        north = centre.hospital("north", step=1.0, examples=30)
        south = centre.hospital("south", step=4.0, examples=10)
        tasks.welcome(centre.runtime, {})
        with trainers(north, south):
            for hospital in (north, south):
                centre.start_node(hospital)
            yield World(centre, north, south, rogue_output)


def _view(centre: Centre, run_id: str) -> RunView:
    with centre.runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def test_unsigned_app_is_refused_by_every_node(world: World, tmp_path: Path) -> None:
    manifest = tmp_path / "pyproject.toml"
    manifest.write_text(
        tasks.MANIFEST.read_text().replace("server.federation.server_app:app", "tests.e2e.rogue_app:app")
    )
    _, fab = build_app(manifest)
    client = world.centre.control_client()
    try:
        run_id = client.StartRun(StartRunRequest(fab=Fab(hash_str=sha256(fab).hexdigest(), content=fab))).run_id

        def finished() -> bool:
            answer = client.ListRuns(ListRunsRequest(run_id=run_id))
            return bool(answer.run_dict[run_id].status.status == "finished")

        wait_for(finished, 90, "the end of the rogue run")
    finally:
        client.close()
    answers = world.rogue_output.read_text().splitlines()
    assert answers
    assert set(answers) == {"The FAB could not be verified."}
    assert world.north.seen == world.south.seen == []


def test_signed_run_goes_from_launch_to_a_registered_model(world: World) -> None:
    centre, runtime = world.centre, world.centre.runtime
    with runtime.database.session() as session:
        for hospital in (world.north, world.south):
            service.store_census(session, node_of(hospital.name), census(neutrophil=30, lymphocyte=30))
        run_id = service.start_run(session, COORDINATOR, RunPlan(rounds=2, local_epochs=1))
    seen_while_running: list[tuple[int, int]] = []

    def look() -> None:
        # What a page would show while a hospital trains: the rounds that have ended, and the round under way.
        view = _view(centre, run_id)
        ended = [row.round for row in view.round_views if row.ended_at]
        seen_while_running.append((len(ended), len(view.round_views)))

    world.north.before_reply = look
    tasks.launch(runtime, {"run_id": run_id})
    wait_for(lambda: _view(centre, run_id).state.over, 150, "the end of the run")

    view = _view(centre, run_id)
    assert (view.state, view.problem) == (RunState.COMPLETED, None)
    assert seen_while_running == [(0, 1), (1, 2), (2, 2)]
    assert [(row.round, row.sampled, row.replied) for row in view.round_views] == [(1, 2, 2), (2, 2, 2)]
    assert all(row.bytes_up > 0 and row.bytes_down > 0 and row.accuracy == 0.8 for row in view.round_views)
    assert {name: metrics.accuracy for name, metrics in view.per_site.items()} == {"north": 0.8, "south": 0.8}
    assert [request["kind"] for request in world.south.seen] == ["train", "train", "evaluate"]

    assert view.model_version is not None
    with runtime.database.session() as session:
        registry.promote(session, COORDINATOR, view.model_version)
        signed = registry.current(session)
    assert signed is not None
    runtime.vault.release_key().public.verify(canonical_bytes(signed.card), signed.signature)
    assert signed.card.examples == {"north": 30, "south": 10}
    assert signed.card.sites["south"].n == METRICS.n
    for artefact in signed.card.artefacts:
        content = runtime.store.get(artefact_key(signed.card.version, artefact.name))
        assert (len(content), sha256(content).hexdigest()) == (artefact.size, artefact.sha256)
    # Every hospital counts alike: two rounds of (1 + 4) / 2 were added to the head's bias the run started from.
    start = load(runtime.store.get(f"federation/{run_id}/round-0000.safetensors"))
    learnt = load(runtime.store.get(artefact_key(signed.card.version, DELTA)))
    for name, array in start.items():
        step = 5.0 if array.shape == HEAD_BIAS else 0.0
        np.testing.assert_allclose(learnt[name], array + step, atol=0.01, rtol=0.002)
    assert Recipe.model_validate(signed.card.recipe).classes == (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)


def test_superlink_knows_the_nodes_by_their_keys(world: World) -> None:
    flower = world.centre.flower
    with open_control(flower.address, flower.ca) as control, world.centre.runtime.database.session() as session:
        by_id = {node.node_id: node for node in control.nodes()}
        for hospital in (world.north, world.south):
            row = session.get(Node, f"node-{hospital.name}")
            assert row is not None
            known = by_id[int(row.flower_node_id or 0)]
            assert known.online
            assert known.public_key.strip() == openssh_to_pem(hospital.public_key).strip()
