"""Every route of the node API, tried by every kind of node on its own hospital's objects and on another's.

A route without a line in `MATRIX` fails, and so does a line without a route. Where a node asks for what another
hospital has, the answer is the one for what does not exist at all.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlmodel import select

from server.accounts.schemas import COMMAND_LINE
from server.app import create_node_api
from server.federation.bases import base_key
from server.hospitals import enrolment
from server.models import CaseSupplement, Node, Report
from server.registry.artefacts import artefact_key
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.supplement import MoreState
from shared.contracts.training import Census
from shared.crypto.tokens import PROOF_HEADER, make_proof
from tests.factories import NodeIdentity
from tests.portal.factories import SITES
from tests.portal.matrix import OTHER, OWN, World, every_route, make_world
from tests.server.centres import NodeSide, body_of
from tests.server.hospitals.test_endpoints import BEAT

API = "/api/node/v1"
COLUMNS = ("nobody", "waiting", "revoked", "own", "other")
"""Who asks for what is hospital a's: an unsigned request, a's node that waits, one that was revoked, a's, and b's."""
NEVER_SEEN = {
    "case": "HV-00000000",
    "signed": "HV-00000000",
    "report": "0" * 32,
    "node": "node-nobody",
    "request": "0" * 32,
}


@dataclass(frozen=True)
class Row:
    """A route as it is asked, and the status a column."""

    asked: str
    outcomes: str
    content: str = ""
    as_never_seen: bool = False
    """To another hospital's node it answers, word for word, as it would for an id that nobody has."""


def _model(decision: str) -> str:
    return json.dumps({"version": "hv-2", "decision": decision, "reason": "Tried by the matrix"})


MATRIX: dict[str, Row] = {
    "health": Row("GET /healthz", "200 200 200 200 200"),
    "identity": Row(f"GET {API}/server", "200 200 200 200 200"),
    "enrol": Row(f"POST {API}/enrolments", "401 201 201 201 403"),
    "enrolment": Row(f"GET {API}/enrolments/{{asker}}", "401 200 200 200 404"),
    "heartbeat": Row(f"POST {API}/heartbeat", "401 403 403 200 200", body_of(BEAT).decode()),
    "requests": Row(f"GET {API}/requests", "401 403 403 200 200"),
    "request_answer": Row(
        f"POST {API}/requests/{{request}}/answer",
        "401 403 403 204 404",
        json.dumps({"taken": True}),
        as_never_seen=True,
    ),
    "request_grants": Row(
        f"POST {API}/requests/{{request}}/grants",
        "401 403 403 200 404",
        json.dumps({"names": ["manifest.json"]}),
        as_never_seen=True,
    ),
    "request_commit": Row(f"POST {API}/requests/{{request}}/commit", "401 403 403 202 404", as_never_seen=True),
    "ask_for_grants": Row(
        f"POST {API}/cases/{{case}}/grants", "401 403 403 409 200", json.dumps({"names": ["manifest.json"]})
    ),
    "commit": Row(f"POST {API}/cases/{{case}}/commit", "401 403 403 202 202"),
    "receipt": Row(f"GET {API}/cases/{{case}}", "401 403 403 200 200"),
    "waiting": Row(f"GET {API}/reports", "401 403 403 200 200"),
    "content": Row(f"GET {API}/reports/{{report}}/content", "401 403 403 200 404", as_never_seen=True),
    "acknowledge": Row(f"POST {API}/reports/{{report}}/acknowledgement", "401 403 403 204 404", as_never_seen=True),
    "post_census": Row(
        f"POST {API}/census", "401 403 403 204 204", Census(rows=(), groups=0).model_dump_json(by_alias=True)
    ),
    "base": Row(f"GET {API}/bases/{'0' * 64}", "401 403 403 200 200"),
    "current_model": Row(f"GET {API}/models/current", "401 403 403 200 200"),
    "artefact": Row(f"GET {API}/models/hv-2/artefacts/model.onnx", "401 403 403 200 200"),
    "decide": Row(f"POST {API}/models/hv-2/decision", "401 403 403 204 204", _model("held")),
}
CELLS = [(name, column) for name in MATRIX for column in COLUMNS]


@dataclass
class Nodes:
    """The world with its node API, and who asks."""

    world: World
    app: FastAPI
    client: TestClient
    askers: dict[str, NodeIdentity] = field(default_factory=dict)

    def ask(self, column: str, method: str, path: str, content: bytes) -> Response:
        """Send a request signed by the node of a column."""
        headers = {"content-type": "application/json"}
        if column in self.askers:
            node = self.askers[column]
            headers[PROOF_HEADER] = make_proof(
                node.signing, node_id=node.node_id, server_id=self.server_id, method=method, path=path, body=content
            )
        return self.client.request(method, path, content=content, headers=headers)

    @property
    def server_id(self) -> str:
        """Who the centre is."""
        return self.world.network.centre.runtime.vault.server_id


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    world = make_world(tmp_path_factory.mktemp("centre"))
    runtime = world.network.centre.runtime
    world.network.centre.store.put(base_key("0" * 64), b"tensors")
    world.network.centre.store.put(artefact_key("hv-2", "model.onnx"), b"onnx")
    askers = {"own": world.network.nodes[OWN], "other": world.network.nodes[OTHER]}
    for column, state in (("waiting", EnrolmentState.PENDING), ("revoked", EnrolmentState.REVOKED)):
        askers[column] = node = NodeIdentity(OWN, f"{column}-node")
        with runtime.database.session() as session:
            session.add(
                Node(
                    id=node.node_id, hospital_id=OWN, mode=NodeMode.TRAINING, state=state,
                    signing_key=node.signing.public.to_base64(), envelope_key="", flower_key="", fingerprint="",
                    software="test",
                )
            )  # fmt: skip
    for hospital, things in world.things.items():
        with runtime.database.session() as session:
            row = CaseSupplement(
                case_id=things["case"], hospital_id=hospital, node_id=things["node"], cells=100,
                asked_by=world.network.people["reader"].user_id, state=MoreState.TAKEN,
            )  # fmt: skip
            session.add(row)
            things["request"] = row.id
    world.keep()
    app = create_node_api(runtime)
    yield Nodes(world, app, TestClient(app), askers)
    runtime.database.dispose()


def test_every_route_has_a_line_in_the_matrix(nodes: Nodes) -> None:
    routes = every_route(nodes.app)
    assert set(routes) == set(MATRIX)
    for name, row in MATRIX.items():
        method, _, path = row.asked.partition(" ")
        assert method in (routes[name].methods or ())
        assert routes[name].path_regex.fullmatch(
            path.format(asker="x", case="HV-00000000", report="x", request="0" * 32)
        )


@pytest.mark.parametrize(("name", "column"), CELLS, ids=lambda part: part)
def test_cell(nodes: Nodes, name: str, column: str) -> None:
    row, world = MATRIX[name], nodes.world
    world.restore_if_changed()
    world.changed = True  # a proof that was used is kept, whatever it asked
    method, _, path = row.asked.partition(" ")
    asker = nodes.askers["own" if column == "other" else column].node_id if column in nodes.askers else "node-a"
    content = _content(nodes, name)
    address = path.format(asker=asker, **world.things[OWN])
    answer = _enrol(nodes, column) if name == "enrol" else nodes.ask(column, method, address, content)
    assert answer.status_code == int(row.outcomes.split()[COLUMNS.index(column)]), answer.text
    if column == "other":
        theirs = [SITES[OWN], *(world.things[OWN][kind] for kind in ("case", "signed", "report", "node"))]
        assert [one for one in theirs if one in answer.text and one not in address] == []
        if row.as_never_seen:
            unknown = nodes.ask(column, method, path.format(asker=asker, **NEVER_SEEN), content)
            assert (unknown.status_code, unknown.text) == (answer.status_code, answer.text)


def test_another_hospitals_case_is_as_unknown_as_none(nodes: Nodes) -> None:
    nodes.world.restore_if_changed()
    case, none = nodes.world.things[OWN]["case"], NEVER_SEEN["case"]
    theirs = nodes.ask("other", "GET", f"{API}/cases/{case}", b"").json()
    assert theirs == {**nodes.ask("other", "GET", f"{API}/cases/{none}", b"").json(), "case_id": case}


def _content(nodes: Nodes, name: str) -> bytes:
    if name != "acknowledge":
        return MATRIX[name].content.encode()
    with nodes.world.network.centre.runtime.database.session(read_only=True) as session:
        report = session.exec(select(Report).where(Report.id == nodes.world.things[OWN]["report"])).one()
        return json.dumps({"version": report.version, "sha256": report.bundle_sha256, "labels_joined": 0}).encode()


def _enrol(nodes: Nodes, column: str) -> Response:
    """Ask to join hospital a with new keys: by its kit, or by another hospital's."""
    runtime, hospital = nodes.world.network.centre.runtime, OTHER if column == "other" else OWN
    with runtime.database.session() as session:
        kit = enrolment.enrol(
            session, runtime, actor=COMMAND_LINE, hospital_id=hospital, name=SITES[hospital], expires_hours=1
        )
    side, path = NodeSide(nodes.server_id), f"{API}/enrolments"
    body = body_of(side.request(kit).model_copy(update={"hospital_id": OWN}))
    headers = side.headers("POST", path, body)
    if column == "nobody":
        del headers[PROOF_HEADER]
    return nodes.client.post(path, content=body, headers=headers)
