"""Nodes: the fingerprint step, decisions, kits, and what a hospital's own staff may see."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.accounts.roles import Role
from server.hospitals.schemas import NodeView
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import Kit
from shared.crypto.pki import DemoCA
from shared.crypto.signing import VerifyKey
from tests.portal.client import Browser, hidden
from tests.portal.factories import Network, add_waiting_node, promote_and_install

FINGERPRINT = "3f2a-91bc-04de-77a1-c0ff-5e12-8b6d-20f9"


@pytest.fixture
def coordinator(visitor: Browser) -> Browser:
    """Somebody who may decide."""
    return visitor.sign_in("coordinator")


def _states(browser: Browser) -> dict[str, str]:
    nodes = [NodeView.model_validate(node) for node in browser.get("/nodes.json").json()]
    return {node.hospital_id: node.state.value for node in nodes}


def test_list_tells_what_left_first_and_what_needs_attention(coordinator: Browser) -> None:
    page = coordinator.get("/nodes").text
    order = [page.index(word) for word in ("Cases that left", "The disk holding the images", "analyser")]
    assert page.index("Cases that left") == min(order)
    assert "18.4 MB" in page


def test_part_of_the_list_holds_the_nodes_alone(coordinator: Browser) -> None:
    part = coordinator.get("/nodes", **{"X-Part": "true"}).text
    assert "Riverside Clinic" in part
    assert "<html" not in part


def test_approval_compares_the_fingerprint_that_stood_on_the_page(coordinator: Browser, network: Network) -> None:
    add_waiting_node(network)
    page = coordinator.get("/nodes/node-d").text
    assert all(f"<li>{group}</li>" in page for group in FINGERPRINT.split("-"))
    assert hidden(page, "fingerprint") == FINGERPRINT
    other = coordinator.post("/nodes/node-d/approve", {"fingerprint": FINGERPRINT.replace("3f2a", "0000")})
    assert other.status_code == 409
    assert _states(coordinator)["d"] == "pending"
    assert coordinator.post("/nodes/node-d/approve", {"fingerprint": FINGERPRINT}).status_code == 303
    assert _states(coordinator)["d"] == "approved"


def test_node_is_rejected_or_revoked(coordinator: Browser, network: Network) -> None:
    add_waiting_node(network)
    coordinator.post("/nodes/node-d/reject")
    coordinator.post("/nodes/node-a/revoke")
    assert _states(coordinator) == {"a": "revoked", "b": "approved", "c": "approved", "d": "rejected"}


def test_kit_is_a_signed_file_and_never_shown_again(coordinator: Browser, network: Network) -> None:
    runtime = network.centre.runtime
    DemoCA.create(runtime.settings.keys / "ca")
    answer = coordinator.post(
        "/hospitals", {"hospital_id": "harbour", "name": "Harbour Hospital", "expires_hours": "24"}
    )
    assert answer.headers["content-disposition"] == 'attachment; filename="kit-harbour.json"'
    assert answer.headers["cache-control"] == "no-store"
    kit = Kit.model_validate_json(answer.content)
    VerifyKey.from_base64(kit.keys.signing).verify(
        canonical_bytes(kit.model_copy(update={"signature": ""})), kit.signature
    )
    assert 23 < (kit.expires_at - datetime.now(UTC)).total_seconds() / 3600 <= 24
    page = coordinator.get("/nodes").text
    assert "Harbour Hospital" in page
    assert kit.token not in page


@pytest.mark.parametrize("hospital_id", ["a b", "../x"])
def test_kit_for_a_bad_name_says_why(coordinator: Browser, hospital_id: str) -> None:
    answer = coordinator.post("/hospitals", {"hospital_id": hospital_id, "name": "X"}, Accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")


def test_hospital_it_sees_its_own_hospital_only(visitor: Browser, network: Network) -> None:
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    add_waiting_node(network)
    it = visitor.sign_in("it-a")
    page = it.get("/nodes").text
    assert "Your node" in page
    assert all(name not in page for name in ("Riverside Clinic", "University Hospital North", FINGERPRINT))
    assert set(_states(it)) == {"a"}
    assert [it.get(f"/nodes/node-{hospital}").status_code for hospital in "abd"] == [200, 404, 404]
    assert [it.post(f"/nodes/node-a/{act}").status_code for act in ("approve", "reject", "revoke")] == [403] * 3
    assert it.post("/hospitals", {"hospital_id": "x", "name": "X"}).status_code == 403


def test_page_has_no_inline_secrets_of_the_server(coordinator: Browser, tmp_path: Path) -> None:
    assert str(tmp_path) not in coordinator.get("/nodes").text


def test_a_node_tells_its_last_decision_on_a_model(visitor: Browser, network: Network) -> None:
    promote_and_install(network, "hv-1")
    visitor.sign_in("coordinator")
    page = " ".join(re.sub(r"<[^>]+>", " ", visitor.get("/nodes").text).split())
    assert "Last decision on a model installed hv-1" in page
    assert "Last decision on a model held hv-1" in page


def test_a_hospital_makes_its_own_tolerance_stricter(visitor: Browser, network: Network) -> None:
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    it = visitor.sign_in("it-a")
    assert it.post("/hospitals/a/tolerance", {"points": "0.5"}).status_code == 303
    page = it.get(f"/nodes/{network.nodes['a'].node_id}").text
    assert "take 0.5 % from this hospital" in page
    laxer = it.post("/hospitals/a/tolerance", {"points": "5"}, Accept="application/json")
    assert (laxer.status_code, laxer.json()["code"]) == (400, "usage")
    assert it.post("/hospitals/b/tolerance", {"points": "1"}).status_code == 403
    visitor.client.cookies.clear()
    audit = visitor.sign_in("auditor").get("/audit?subject=hospital:a").text
    assert "set what the hospital may lose by a model" in audit
    assert visitor.post("/hospitals/a/tolerance", {"points": "1"}).status_code == 403
