"""What nodes post and fetch over the node API: census, current model, its files, their decision."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

import server.hospitals.service as hospitals
import server.registry.service as registry
from server.accounts.schemas import COMMAND_LINE
from server.app import create_node_api
from server.federation import service
from server.models import Hospital, Run
from server.models.base import utc_now
from server.registry.artefacts import artefact_key
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.model_card import ArtefactRef, ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.report import ModelDecision
from shared.contracts.training import CalibrationSummary, Census, EvaluateReply, Recipe, SiteMetrics
from tests.server.centres import NodeSide, body_of, make_runtime
from tests.server.federation.world import census, new_node

API = "/api/node/v1"
ONNX = b"an ONNX file"
METRICS = SiteMetrics(n=5, loss=1.0, accuracy=0.5, macro_f1=0.5)


@dataclass
class World:
    """A centre's node API and an approved node of it."""

    runtime: Runtime
    client: TestClient
    node: NodeSide

    def get(self, path: str) -> Response:
        return self.client.get(path, headers=self.node.headers("GET", path, node_id="node-north"))

    def post(self, path: str, body: bytes) -> Response:
        headers = self.node.headers("POST", path, body, node_id="node-north")
        return self.client.post(path, content=body, headers=headers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    runtime = make_runtime(tmp_path)
    node = NodeSide(runtime.vault.server_id)
    with runtime.database.session() as session:
        session.add(Hospital(id="north", name="North"))
        session.flush()
        row = new_node("north")
        row.signing_key, row.envelope_key, row.flower_key = node.keys.signing, node.keys.envelope, node.keys.flower
        session.add(row)
    with TestClient(create_node_api(runtime)) as client:
        yield World(runtime, client, node)
    runtime.database.dispose()


def _promoted(runtime: Runtime) -> SignedModelCard:
    calibration = CalibrationSummary(temperature=1.0, conformal_quantile=0.9)
    recipe = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))
    card = ModelCard(
        version="hv-1",
        created_at=utc_now(),
        base_sha256="0" * 64,
        recipe=recipe,
        artefacts=(ArtefactRef(name="model.onnx", sha256=sha256(ONNX).hexdigest(), size=len(ONNX)),),
        run_key="run",
        sites={"north": METRICS},
        examples={"north": 3},
        calibration=calibration,
    )
    key = runtime.vault.release_key()
    signed = SignedModelCard(card=card, signature=key.sign(canonical_bytes(card)), key_id=key.public.key_id)
    runtime.store.put(artefact_key("hv-1", "model.onnx"), ONNX)
    run = Run(
        id="run",
        recipe=recipe.model_dump(mode="json"),
        rounds=1,
        min_sites=1,
        round_deadline_seconds=60,
        created_by="cli",
    )
    with runtime.database.session() as session:
        session.add(run)
        session.flush()
        reply = EvaluateReply(candidate=METRICS, current=None, calibration=calibration, seconds=1.0)
        registry.register(session, signed, {"north": reply})
        registry.promote(session, COMMAND_LINE, "hv-1")
    return signed


def test_census_is_kept_for_the_nodes_own_hospital(world: World) -> None:
    counted = census(neutrophil=7)
    assert world.post(f"{API}/census", body_of(counted)).status_code == 204
    with world.runtime.database.session(read_only=True) as session:
        [site] = service.census(session, COMMAND_LINE)
    assert (site.hospital_id, site.census) == ("north", counted)


def test_census_without_proof_is_refused(world: World) -> None:
    answer = world.client.post(f"{API}/census", content=body_of(Census(rows=(), groups=0)))
    assert answer.status_code == 401


def test_node_fetches_the_current_model_and_its_files(world: World) -> None:
    assert world.get(f"{API}/models/current").status_code == 404
    signed = _promoted(world.runtime)
    fetched = SignedModelCard.model_validate_json(world.get(f"{API}/models/current").content)
    assert fetched == signed
    world.runtime.vault.release_key().public.verify(canonical_bytes(fetched.card), fetched.signature)
    assert world.get(f"{API}/models/hv-1/artefacts/model.onnx").content == ONNX
    assert world.get(f"{API}/models/hv-1/artefacts/other.onnx").status_code == 404


def test_decision_is_recorded_under_its_version(world: World) -> None:
    _promoted(world.runtime)
    decision = body_of(ModelDecision(version="hv-1", decision="installed", reason="better here"))
    assert world.post(f"{API}/models/hv-1/decision", decision).status_code == 204
    assert world.post(f"{API}/models/hv-2/decision", decision).status_code == 400
    with world.runtime.database.session(read_only=True) as session:
        [row] = registry.model_view(session, COMMAND_LINE, "hv-1").nodes
        assert hospitals.list_hospitals(session, COMMAND_LINE)[0].id == row.hospital_id
    assert (row.decision, row.reason) == ("installed", "better here")
