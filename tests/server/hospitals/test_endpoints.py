"""Tests of the node API's door: who gets in, and what a refused one is told."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from fastapi.testclient import TestClient
from httpx2 import Response

from server.accounts.schemas import COMMAND_LINE
from server.app import create_node_api
from server.hospitals import service
from server.limits import LARGEST_BODY
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.enrolment import Heartbeat, HeartbeatReply, Kit, LedgerTotals, NodeMode
from tests.server.centres import NodeSide, body_of, make_runtime

API = "/api/node/v1"
BEAT = Heartbeat(
    software="hematovision 0.1.0",
    mode=NodeMode.TRAINING,
    model_version=None,
    processes={"agent": "running"},
    ledger=LedgerTotals(),
    outbox=2,
)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_node_api(runtime), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def node(runtime: Runtime) -> NodeSide:
    return NodeSide(runtime.vault.server_id)


@pytest.fixture
def kit(runtime: Runtime) -> Kit:
    with runtime.database.session() as session:
        return service.enrol(session, runtime, actor=COMMAND_LINE, hospital_id="a", name="Hospital A")


def join(client: TestClient, node: NodeSide, kit: Kit) -> Response:
    body = body_of(node.request(kit))
    return client.post(f"{API}/enrolments", content=body, headers=node.headers("POST", f"{API}/enrolments", body))


def joined(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit, *, approved: bool = True) -> str:
    node_id: str = join(client, node, kit).json()["node_id"]
    if approved:
        with runtime.database.session() as session:
            service.approve(session, principal=COMMAND_LINE, node_id=node_id)
    return node_id


def beat(client: TestClient, headers: dict[str, str], body: bytes = body_of(BEAT)) -> Response:
    return client.post(f"{API}/heartbeat", content=body, headers=headers)


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_enrolment_then_status_then_heartbeat(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    node_id = joined(client, runtime, node, kit)
    path = f"{API}/enrolments/{node_id}"
    status = client.get(path, headers=node.headers("GET", path, node_id=node_id)).json()
    assert (status["state"], status["superlink"]) == ("approved", "127.0.0.1:9092")
    answer = beat(client, node.headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id))
    reply = HeartbeatReply.model_validate(answer.json())
    assert reply == HeartbeatReply(current_model=None, reports_waiting=0, superlink="127.0.0.1:9092")
    with runtime.database.session() as session:
        (view,) = service.approved_nodes(session)
    assert (view.online, view.outbox, view.processes) == (True, 2, {"agent": "running"})


def test_enrolment_twice_is_the_same_node(client: TestClient, node: NodeSide, kit: Kit) -> None:
    assert join(client, node, kit).json() == join(client, node, kit).json()


def test_enrolment_with_a_used_kit(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    join(client, node, kit)
    assert code(join(client, NodeSide(runtime.vault.server_id), kit)) == (409, "kit_used")


def test_enrolment_with_a_kit_of_another_server(client: TestClient, kit: Kit) -> None:
    assert code(join(client, NodeSide("ffff-0000"), kit)) == (403, "kit_other_server")


def test_enrolment_signed_by_another_key(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    thief = NodeSide(runtime.vault.server_id)
    body = body_of(node.request(kit))
    answer = client.post(f"{API}/enrolments", content=body, headers=thief.headers("POST", f"{API}/enrolments", body))
    assert code(answer) == (401, "unauthenticated")


def test_enrolment_without_proof(client: TestClient, node: NodeSide, kit: Kit) -> None:
    answer = client.post(
        f"{API}/enrolments", content=body_of(node.request(kit)), headers={"Content-Type": "application/json"}
    )
    assert code(answer) == (401, "unauthenticated")


def test_unapproved_node_learns_its_status_and_nothing_else(
    client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit
) -> None:
    node_id = joined(client, runtime, node, kit, approved=False)
    path = f"{API}/enrolments/{node_id}"
    assert client.get(path, headers=node.headers("GET", path, node_id=node_id)).json()["state"] == "pending"
    answer = beat(client, node.headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id))
    assert code(answer) == (403, "not_approved")
    assert "approve" in answer.json()["message"]


def test_revoked_node_is_shut_out_at_once(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    node_id = joined(client, runtime, node, kit)
    with runtime.database.session() as session:
        service.revoke(session, principal=COMMAND_LINE, node_id=node_id)
    answer = beat(client, node.headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id))
    assert code(answer) == (403, "not_approved")


def test_replayed_request_is_refused(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    node_id = joined(client, runtime, node, kit)
    headers = node.headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id)
    assert beat(client, headers).status_code == 200
    assert code(beat(client, headers)) == (401, "unauthenticated")
    with time_machine.travel(utc_now() + timedelta(minutes=5)), runtime.database.session() as session:
        service.forget_proofs(session)
    with time_machine.travel(utc_now() + timedelta(minutes=5)):
        assert code(beat(client, headers)) == (401, "unauthenticated")


def test_proof_covers_body_path_and_sender(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    node_id = joined(client, runtime, node, kit)
    changed = body_of(BEAT.model_copy(update={"outbox": 0}))
    headers = node.headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id)
    assert code(beat(client, headers, changed)) == (401, "unauthenticated")
    elsewhere = node.headers("POST", f"{API}/census", body_of(BEAT), node_id=node_id)
    assert code(beat(client, elsewhere)) == (401, "unauthenticated")
    stranger = NodeSide(runtime.vault.server_id).headers("POST", f"{API}/heartbeat", body_of(BEAT), node_id=node_id)
    assert code(beat(client, stranger)) == (401, "unauthenticated")


def test_node_asks_about_itself_only(client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit) -> None:
    node_id = joined(client, runtime, node, kit)
    path = f"{API}/enrolments/another"
    answer = client.get(path, headers=node.headers("GET", path, node_id=node_id))
    assert code(answer) == (404, "not_found")


def test_body_that_does_not_fit_names_fields_not_values(
    client: TestClient, runtime: Runtime, node: NodeSide, kit: Kit
) -> None:
    node_id = joined(client, runtime, node, kit)
    body = b'{"software": "x", "secret-value": 1}'
    answer = beat(client, node.headers("POST", f"{API}/heartbeat", body, node_id=node_id), body)
    assert code(answer) == (422, "data_invalid")


def test_oversize_body_is_refused_unread(client: TestClient, node: NodeSide) -> None:
    headers = node.headers("POST", f"{API}/heartbeat") | {"Content-Length": str(LARGEST_BODY + 1)}
    assert code(beat(client, headers, b"x")) == (413, "data_invalid")


def test_unknown_address_is_an_answer_in_the_same_form(client: TestClient) -> None:
    assert code(client.get("/nowhere")) == (404, "not_found")


def test_identity_needs_no_proof(client: TestClient, runtime: Runtime) -> None:
    assert client.get(f"{API}/server").json() == {"server_id": runtime.vault.server_id}
