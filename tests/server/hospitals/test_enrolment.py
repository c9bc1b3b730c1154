"""Tests of kits, enrolment and decisions."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from sqlmodel import select

from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE
from server.hospitals import service
from server.models import EnrolmentKit, OutboxEntry
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import EnrolmentState, EnrolmentStatus, Kit
from shared.contracts.errors import (
    ConflictError,
    DataInvalidError,
    ForbiddenError,
    HematovisionError,
    KitExpiredError,
    KitInvalidError,
    KitUsedError,
    NotFoundError,
)
from shared.crypto.signing import VerifyKey, fingerprint
from tests.server.centres import NodeSide, make_runtime, principal


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def node(runtime: Runtime) -> NodeSide:
    return NodeSide(runtime.vault.server_id)


def make_kit(runtime: Runtime, hospital_id: str = "a", name: str = "Hospital A") -> Kit:
    with runtime.database.session() as session:
        return service.enrol(session, runtime, actor=COMMAND_LINE, hospital_id=hospital_id, name=name)


def ask(runtime: Runtime, node: NodeSide, kit: Kit) -> EnrolmentStatus:
    with runtime.database.session() as session:
        return service.request_enrolment(session, runtime, node.request(kit))


def refused(runtime: Runtime, node: NodeSide, kit: Kit, error: type[HematovisionError]) -> str:
    with pytest.raises(error) as caught:
        ask(runtime, node, kit)
    return caught.value.message


def approve(runtime: Runtime, node_id: str, compared: str | None = None) -> EnrolmentState:
    with runtime.database.session() as session:
        return service.approve(session, principal=COMMAND_LINE, node_id=node_id, fingerprint=compared)


def test_enrol_signs_a_kit_and_keeps_only_the_tokens_hash(runtime: Runtime) -> None:
    kit = make_kit(runtime)
    unsigned = kit.model_copy(update={"signature": ""})
    VerifyKey.from_base64(kit.keys.signing).verify(canonical_bytes(unsigned), kit.signature)
    assert kit.server_id == fingerprint(kit.keys.signing)
    assert kit.ca_pem.startswith("-----BEGIN CERTIFICATE-----")
    with runtime.database.session() as session:
        (row,) = session.exec(select(EnrolmentKit)).all()
        assert kit.token not in row.model_dump_json()


def test_enrol_again_keeps_the_hospital_and_refuses_another_name(runtime: Runtime) -> None:
    assert make_kit(runtime).token != make_kit(runtime).token
    with pytest.raises(ConflictError, match="Hospital A"):
        make_kit(runtime, name="Hospital B")


@pytest.mark.parametrize("hospital_id", ["", "a b", "../a", "-a"])
def test_enrol_refuses_a_bad_id(runtime: Runtime, hospital_id: str) -> None:
    with pytest.raises(HematovisionError, match="hospital id"):
        make_kit(runtime, hospital_id)


def test_request_waits_for_approval(runtime: Runtime, node: NodeSide) -> None:
    status = ask(runtime, node, make_kit(runtime))
    assert status.state is EnrolmentState.PENDING
    assert status.superlink is None
    assert status.fingerprint == fingerprint(node.keys.signing, node.keys.envelope, node.keys.flower)


def test_request_repeated_after_a_lost_reply_gets_the_same_answer(runtime: Runtime, node: NodeSide) -> None:
    kit = make_kit(runtime)
    first = ask(runtime, node, kit)
    with time_machine.travel(kit.expires_at + timedelta(hours=1)):
        assert ask(runtime, node, kit) == first
    approve(runtime, first.node_id)
    assert ask(runtime, node, kit).node_id == first.node_id


def test_reused_kit_is_refused(runtime: Runtime, node: NodeSide) -> None:
    kit = make_kit(runtime)
    ask(runtime, node, kit)
    assert "used before" in refused(runtime, NodeSide(runtime.vault.server_id), kit, KitUsedError)


def test_reused_kit_is_refused_when_one_key_differs(runtime: Runtime, node: NodeSide) -> None:
    kit = make_kit(runtime)
    ask(runtime, node, kit)
    node.keys = node.keys.model_copy(update={"envelope": NodeSide("x").keys.envelope})
    refused(runtime, node, kit, KitUsedError)


def test_expired_kit_is_refused(runtime: Runtime, node: NodeSide) -> None:
    kit = make_kit(runtime)
    with time_machine.travel(kit.expires_at + timedelta(seconds=1)):
        assert "expired" in refused(runtime, node, kit, KitExpiredError)


def test_unknown_token_or_other_hospital_is_refused(runtime: Runtime, node: NodeSide) -> None:
    kit = make_kit(runtime)
    refused(runtime, node, kit.model_copy(update={"token": "x" * 43}), KitInvalidError)
    refused(runtime, node, kit.model_copy(update={"hospital_id": "b"}), KitInvalidError)


def test_bad_keys_are_refused_and_do_not_use_the_kit_up(runtime: Runtime, node: NodeSide) -> None:
    kit, good = make_kit(runtime), node.keys
    for change in ({"signing": "AAAA"}, {"envelope": "AAAA"}, {"flower": "ssh-ed25519 AAAA"}):
        node.keys = good.model_copy(update=change)
        refused(runtime, node, kit, DataInvalidError)
    node.keys = good
    assert ask(runtime, node, kit).state is EnrolmentState.PENDING


def test_same_keys_with_another_kit_are_refused(runtime: Runtime, node: NodeSide) -> None:
    ask(runtime, node, make_kit(runtime))
    refused(runtime, node, make_kit(runtime, "b", "B"), ConflictError)


def test_rejected_node_may_ask_again_with_a_new_kit(runtime: Runtime, node: NodeSide) -> None:
    first = ask(runtime, node, make_kit(runtime))
    with runtime.database.session() as session:
        assert service.reject(session, principal=COMMAND_LINE, node_id=first.node_id) is EnrolmentState.REJECTED
    with pytest.raises(ConflictError):
        approve(runtime, first.node_id)
    again = ask(runtime, node, make_kit(runtime))
    assert (again.node_id, again.state) == (first.node_id, EnrolmentState.PENDING)


def test_approve_tells_the_superlink_and_queues_the_fleet_update(runtime: Runtime, node: NodeSide) -> None:
    status = ask(runtime, node, make_kit(runtime))
    assert approve(runtime, status.node_id, status.fingerprint.upper()) is EnrolmentState.APPROVED
    assert approve(runtime, status.node_id) is EnrolmentState.APPROVED
    with runtime.database.session() as session:
        assert service.status(session, runtime, status.node_id).superlink == "127.0.0.1:9092"
        assert [entry.kind for entry in session.exec(select(OutboxEntry))] == ["federation.welcome"]
        assert [view.id for view in service.approved_nodes(session)] == [status.node_id]


def test_approve_refuses_another_fingerprint(runtime: Runtime, node: NodeSide) -> None:
    status = ask(runtime, node, make_kit(runtime))
    with pytest.raises(ConflictError, match="fingerprint"):
        approve(runtime, status.node_id, "0" * 39)
    with runtime.database.session() as session:
        assert service.status(session, runtime, status.node_id).state is EnrolmentState.PENDING


def test_approve_refuses_an_unknown_node_and_every_other_role(runtime: Runtime, node: NodeSide) -> None:
    with pytest.raises(NotFoundError):
        approve(runtime, "nobody")
    status = ask(runtime, node, make_kit(runtime))
    for role in (Role.HEMATOLOGIST, Role.HOSPITAL_IT, Role.AUDITOR):
        with pytest.raises(ForbiddenError), runtime.database.session() as session:
            service.approve(session, principal=principal(role, "a"), node_id=status.node_id)


def test_revoked_node_is_no_approved_node(runtime: Runtime, node: NodeSide) -> None:
    status = ask(runtime, node, make_kit(runtime))
    approve(runtime, status.node_id)
    with runtime.database.session() as session:
        service.revoke(session, principal=COMMAND_LINE, node_id=status.node_id)
        assert service.approved_nodes(session) == []


def test_hospital_it_sees_its_own_hospital_only(runtime: Runtime, node: NodeSide) -> None:
    ask(runtime, node, make_kit(runtime))
    make_kit(runtime, "b", "Hospital B")
    with runtime.database.session() as session:
        everything = service.list_hospitals(session, principal(Role.COORDINATOR))
        own = service.list_hospitals(session, principal(Role.HOSPITAL_IT, "b"))
        nobody = service.list_hospitals(session, principal(Role.HOSPITAL_IT, None))
    assert [(hospital.id, len(hospital.nodes)) for hospital in everything] == [("a", 1), ("b", 0)]
    assert [hospital.id for hospital in own] == ["b"]
    assert nobody == []
    assert utc_now() >= everything[0].nodes[0].enrolled_at
