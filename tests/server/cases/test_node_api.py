"""A case's whole way over the node API: grants, upload, commit, report, acknowledgement; and whose it is."""

import hashlib
import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response  # what starlette's test client gives
from sqlmodel import select

from server.app import create_node_api
from server.cases import service as cases
from server.cases.tasks import TASKS as CASE_TASKS
from server.models import OutboxEntry
from server.reports.tasks import TASKS as REPORT_TASKS
from server.reviews import service as reviews
from shared.crypto.tokens import PROOF_HEADER, make_proof
from tests.factories import NodeIdentity, centre_key, pack
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward


class NodeClient:
    """Speaks to the node API as one node does."""

    def __init__(self, client: TestClient, node: NodeIdentity, server_id: str) -> None:
        self._client, self._node, self._server_id = client, node, server_id

    def ask(self, method: str, path: str, content: object = None) -> Response:
        """Send one signed request."""
        body = b"" if content is None else json.dumps(content).encode()
        proof = make_proof(
            self._node.signing,
            node_id=self._node.node_id,
            server_id=self._server_id,
            method=method,
            path=path,
            body=body,
        )
        headers = {PROOF_HEADER: proof, "content-type": "application/json"}
        return self._client.request(method, path, content=body, headers=headers)


@pytest.fixture
def http(ward: Ward) -> Iterator[TestClient]:
    """Yield a client of the ward's node API."""
    with TestClient(create_node_api(ward.centre.runtime)) as client:
        yield client


@pytest.fixture
def node(ward: Ward, http: TestClient) -> NodeClient:
    """Return hospital a's node."""
    return NodeClient(http, ward.node, ward.centre.runtime.vault.server_id)


@pytest.fixture
def other(ward: Ward, http: TestClient) -> NodeClient:
    """Return hospital b's node."""
    return NodeClient(http, ward.other_node, ward.centre.runtime.vault.server_id)


def _work_outbox(ward: Ward) -> None:
    runtime = ward.centre.runtime
    with runtime.database.session(read_only=True) as session:
        entries = [(entry.kind, entry.payload) for entry in session.exec(select(OutboxEntry))]
    for kind, payload in entries:
        (CASE_TASKS | REPORT_TASKS)[kind](runtime, payload)


def test_case_goes_in_and_its_report_comes_home(ward: Ward, node: NodeClient, other: NodeClient) -> None:
    parcel = pack(ward.node, centre_key(ward.centre))
    place = f"/api/node/v1/cases/{parcel.case_id}"
    grants = node.ask("POST", f"{place}/grants", {"names": sorted(parcel.objects)}).json()
    assert sorted(grants["urls"]) == sorted(parcel.objects)
    for name, part in parcel.objects.items():
        ward.centre.store.redeem("PUT", grants["urls"][name], part)
    assert node.ask("GET", place).json()["state"] is None
    for _ in range(2):
        assert node.ask("POST", f"{place}/commit").status_code == 202
    _work_outbox(ward)
    assert node.ask("GET", place).json() == {"case_id": parcel.case_id, "state": "available", "problem": None}
    assert other.ask("GET", place).json()["state"] is None

    runtime = ward.centre.runtime
    with runtime.database.session() as session:
        cases.claim(session, ward.reader, parcel.case_id)
        look_through(session, ward.reader, parcel.case_id)
        signing = sign_input(session, ward.reader, parcel.case_id, impression="Normal smear.")
        report_id = reviews.sign(session, ward.reader, runtime, parcel.case_id, signing)
    assert node.ask("GET", "/api/node/v1/reports").json() == []
    _work_outbox(ward)
    (notice,) = node.ask("GET", "/api/node/v1/reports").json()
    assert other.ask("GET", "/api/node/v1/reports").json() == []
    content = f"/api/node/v1/reports/{report_id}/content"
    assert other.ask("GET", content).status_code == 404
    sealed = node.ask("GET", content).content
    assert hashlib.sha256(sealed).hexdigest() == notice["sha256"]
    said = {"version": 1, "sha256": notice["sha256"], "labels_joined": 0}
    address = f"/api/node/v1/reports/{report_id}/acknowledgement"
    assert other.ask("POST", address, said).status_code == 404
    assert [node.ask("POST", address, said).status_code for _ in range(2)] == [204, 204]
    assert node.ask("GET", place).json()["state"] == "closed"
    assert node.ask("GET", "/api/node/v1/reports").json() == []


def test_quarantined_case_tells_its_hospital_why(ward: Ward, node: NodeClient, other: NodeClient) -> None:
    parcel = pack(ward.node, centre_key(ward.centre))
    parcel.objects["blobs/cell-c1.png"] = b"x" * 200
    parcel.upload(ward.centre.store)
    place = f"/api/node/v1/cases/{parcel.case_id}"
    node.ask("POST", f"{place}/commit")
    _work_outbox(ward)
    assert "cell-c1.png" in node.ask("GET", place).json()["problem"]
    assert other.ask("GET", place).json()["problem"] is None


def test_unsigned_request_is_refused(ward: Ward, http: TestClient) -> None:
    place = f"/api/node/v1/cases/{ward.case_id}"
    assert http.get(place).status_code == 401
    assert http.get("/api/node/v1/reports").status_code == 401
    assert http.post(f"{place}/grants", json={"names": []}).status_code == 401


def test_case_id_of_another_shape_is_refused(node: NodeClient) -> None:
    assert node.ask("GET", "/api/node/v1/cases/HV-lowercase").status_code == 422
