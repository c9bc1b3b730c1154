"""Real SuperLink, SuperExec, SuperNodes and relays: a signed run from launch to model, and what is refused.

Refused are an app that nobody signed, a node whose key was never registered, a centre with another certificate
authority, an update altered on its way, an update of an earlier round, and whatever a hospital's policy forbids.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from safetensors.numpy import load

import server.audit.service as audit
import server.registry.service as registry
from client_node.cases.ledger import Ledger
from deploy.services.object_store import StoreAddress
from server.federation import dry_run, service, tasks
from server.federation.control import open_control, openssh_to_pem
from server.federation.forecast import DryRunView
from server.federation.publish import build_app
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState, SiteState
from server.models import Node
from server.registry.artefacts import DELTA, artefact_key
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import PACKED_PROTOCOL
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.crypto.pki import DemoCA
from shared.processes import LOOPBACK, Service
from tests.e2e.flower_world import (
    HEAD_BIAS,
    METRICS,
    Centre,
    Sealed,
    TestHospital,
    running_centre,
    trainers,
    wait_for,
)
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
    """A centre with three hospitals, their SuperNodes and trainers running; what west answers is not left alone."""

    centre: Centre
    north: TestHospital
    south: TestHospital
    west: TestHospital
    nodes: list[Service]
    rogue_output: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, object_store: StoreAddress) -> Iterator[World]:
    work = tmp_path_factory.mktemp("flower")
    rogue_output = work / "rogue.txt"
    with running_centre(work, object_store, {OUTPUT: str(rogue_output)}) as centre:
        north = centre.hospital("north", step=1.0, examples=30, protocol=PACKED_PROTOCOL)
        south = centre.hospital("south", step=4.0, examples=10, protocol=PACKED_PROTOCOL)
        west = centre.hospital("west", step=2.0, examples=20, protocol=PACKED_PROTOCOL)
        tasks.welcome(centre.runtime, {})
        with centre.runtime.database.session() as session:
            for hospital in (north, south):
                service.store_census(session, node_of(hospital.name), census(neutrophil=30, lymphocyte=30))
        with trainers(north, south, west):
            nodes = [centre.start_node(hospital) for hospital in (north, south, west)]
            yield World(centre, north, south, west, nodes, rogue_output)


def _altered_then_replayed() -> Callable[[Sealed], Sealed]:
    """Return what happens to west's answers: the first update is altered, and comes once more, whole, for the next."""
    kept: list[Sealed] = []

    def meddle(answer: Sealed) -> Sealed:
        text, signed, tensors = answer
        kept.append(answer)
        match len(kept):
            case 1:
                return text, signed, tensors[:-1] + bytes([tensors[-1] ^ 1])
            case 2:
                return kept[0]
            case _:
                return answer

    return meddle


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
    assert world.north.seen == world.south.seen == world.west.seen == []


def test_signed_run_goes_from_launch_to_a_registered_model(world: World) -> None:
    centre, runtime = world.centre, world.centre.runtime
    with runtime.database.session() as session:
        run_id = service.start_run(session, COORDINATOR, RunPlan(rounds=2, local_epochs=1))
    seen_while_running: list[tuple[int, int]] = []

    def look() -> None:
        # What a page would show while a hospital trains: the rounds that have ended, and the round under way.
        view = _view(centre, run_id)
        ended = [row.round for row in view.round_views if row.ended_at]
        seen_while_running.append((len(ended), len(view.round_views)))

    world.north.before_reply = look
    world.west.on_the_way = _altered_then_replayed()
    tasks.launch(runtime, {"run_id": run_id})
    wait_for(lambda: _view(centre, run_id).state.over, 300, "the end of the run")

    view = _view(centre, run_id)
    assert (view.state, view.problem) == (RunState.COMPLETED, None)
    assert seen_while_running == [(0, 1), (1, 2), (2, 2)]
    assert [(row.round, row.sampled, row.replied) for row in view.round_views] == [(1, 3, 2), (2, 3, 2)]
    west = [row.sites[2] for row in view.round_views]
    assert [(site.hospital_id, site.state) for site in west] == [("west", SiteState.REFUSED)] * 2
    assert "update was altered on its way" in (west[0].reason or "")
    assert "belongs to another request" in (west[1].reason or "")
    with runtime.database.session(read_only=True) as session:
        audited = audit.search(session, COORDINATOR, "hospital:west")
    assert [(entry.action, entry.data["what"], entry.data["code"]) for entry in reversed(audited)] == [
        ("federation.refused", f"round {number}", "signature_invalid") for number in (1, 2)
    ]
    assert all(row.bytes_up > 0 and row.bytes_down > 0 and row.accuracy == 0.8 for row in view.round_views)
    assert {name: metrics.accuracy for name, metrics in view.per_site.items()} == {
        "north": 0.8,
        "south": 0.8,
        "west": 0.8,
    }
    assert [(request["kind"], request.get("form")) for request in world.south.seen] == [
        ("train", "packed"),
        ("train", "packed"),
        ("evaluate", None),
    ]
    assert "Tensors travel packed" in [event.text for event in view.events]

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
        for hospital in (world.north, world.south, world.west):
            row = session.get(Node, f"node-{hospital.name}")
            assert row is not None
            known = by_id[int(row.flower_node_id or 0)]
            assert known.online
            assert known.public_key.strip() == openssh_to_pem(hospital.public_key).strip()


def test_hospitals_are_asked_before_a_launch_and_a_policy_says_no(world: World) -> None:
    runtime = world.centre.runtime
    policy = world.south.home / "policy.toml"
    before = policy.read_text()
    with runtime.database.session() as session:
        key = dry_run.start(session, COORDINATOR, RunPlan(rounds=2, min_sites=3))
    try:
        policy.write_text("[training]\nleast_participants = 4\n")
        tasks.ask_hospitals(runtime, {"dry_run_id": key})

        def view() -> DryRunView:
            with runtime.database.session(read_only=True) as session:
                return dry_run.view(session, COORDINATOR, key)

        wait_for(lambda: view().ended, 120, "the end of the dry run")
    finally:
        policy.write_text(before)
    answered = view()
    no = "This hospital takes part only with 4 hospitals or more."
    assert answered.problem is None
    assert [(site.hospital_id, site.takes_part, site.reason, site.examples) for site in answered.sites] == [
        ("north", True, "", 30),
        ("south", False, no, None),
        ("west", True, "", 20),
    ]
    assert (answered.willing, answered.enough) == (2, False)
    assert [(entry.kind, entry.subject) for entry in Ledger(world.south.home).entries()][-1] == ("answer", "dry-run")


def test_unregistered_key_and_wrong_certificate_authority_get_nowhere(world: World, tmp_path: Path) -> None:
    centre = world.centre
    stranger = centre.hospital("stranger", step=9.0, examples=1, approved=False)
    misled = centre.hospital("misled", step=9.0, examples=1, approved=False)
    shutil.copyfile(DemoCA.create(tmp_path / "other").cert_path, misled.home / "keys" / "ca.crt")
    started = {hospital.name: centre.start_node(hospital) for hospital in (stranger, misled)}
    wait_for(lambda: not any(node.alive for node in started.values()), 120, "the end of both SuperNodes")
    said = {name: node.log_path.read_text() for name, node in started.items()}
    assert {name: node.returncode for name, node in started.items()} == {"stranger": 1, "misled": 1}
    assert "Failed to activate SuperNode" in said["stranger"]
    assert "certificate verify failed" in said["misled"]
    with open_control(centre.flower.address, centre.flower.ca) as control:
        keys = {node.public_key.strip() for node in control.nodes()}
    assert openssh_to_pem(stranger.public_key).strip() not in keys
    assert stranger.seen == misled.seen == []


def test_nothing_of_flowers_listens_beyond_this_machine(world: World) -> None:
    flower = world.centre.flower
    listening: set[str] = set()
    for part in (flower.superlink, flower.superexec, *world.nodes):
        for process in part.processes():
            sockets = process.net_connections(kind="inet")
            listening |= {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {LOOPBACK}
