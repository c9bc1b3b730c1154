"""Requests for more of a smear as the centre keeps them: how they end, and what is left in the store."""

from datetime import timedelta

import pytest
from sqlmodel import select

from server.cases import service as cases
from server.cases import supplements, tasks
from server.cases.schemas import MoreView
from server.models import AuditEntry, Case, CaseSupplement, Node, OutboxEntry
from shared.contracts.case import CaseState, GrantRequest
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.errors import ConflictError
from shared.contracts.supplement import MoreAnswer, MoreState
from tests.server.conftest import Ward


def ask(ward: Ward) -> str:
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
        return supplements.ask(session, ward.reader, ward.case_id).request_id


def upload(ward: Ward, request_id: str) -> str:
    """Do the node's part as far as a first picture; return where it lies."""
    runtime, node = ward.centre.runtime, ward.node.node_id
    with runtime.database.session() as session:
        supplements.answer(session, node_id=node, request_id=request_id, said=MoreAnswer(taken=True))
        request = GrantRequest(names=("blobs/field-1.jpg",))
        urls = supplements.grant(session, runtime.store, node_id=node, request_id=request_id, request=request).urls
    ward.centre.store.redeem("PUT", urls["blobs/field-1.jpg"], b"cipher")
    return f"{ward.parcel.prefix}/supplements/{request_id}/blobs/field-1.jpg"


def newest(ward: Ward) -> MoreView:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return supplements.of_case(session, ward.reader, ward.case_id)[0]


def set_state(ward: Ward, state: CaseState) -> None:
    with ward.centre.runtime.database.session() as session:
        session.get_one(Case, ward.case_id).state = state


def drop_what_waits(ward: Ward) -> int:
    """Carry the rows of the outbox out that clear the store; return how many."""
    runtime = ward.centre.runtime
    with runtime.database.session(read_only=True) as session:
        rows = session.exec(select(OutboxEntry).where(OutboxEntry.kind == supplements.DROP)).all()
        payloads = [row.payload for row in rows]
    for payload in payloads:
        tasks.TASKS[supplements.DROP](runtime, payload)
    return len(payloads)


def test_commit_without_a_manifest_ends_the_request(ward: Ward) -> None:
    runtime, request_id = ward.centre.runtime, ask(ward)
    place = upload(ward, request_id)
    with runtime.database.session() as session:
        supplements.commit(session, node_id=ward.node.node_id, request_id=request_id)
    assert supplements.take_in(runtime, request_id) is MoreState.FAILED
    assert newest(ward).reason == "What came has no manifest; ask again."
    assert drop_what_waits(ward) == 1
    assert ward.centre.store.head(place) is None
    assert ask(ward) != request_id


def test_request_for_a_case_that_was_signed_is_served_no_more_and_ends(ward: Ward) -> None:
    runtime, request_id = ward.centre.runtime, ask(ward)
    place = upload(ward, request_id)
    set_state(ward, CaseState.SIGNED)
    with runtime.database.session() as session:
        assert supplements.waiting_for(session, runtime.vault, node_id=ward.node.node_id) == ()
        with pytest.raises(ConflictError, match="Nothing more is taken"):
            supplements.grant(
                session, runtime.store, node_id=ward.node.node_id, request_id=request_id,
                request=GrantRequest(names=("key.json",)),
            )  # fmt: skip
    assert ward.centre.store.head(place) is not None
    tasks.TASKS["cases.supplement_lapse"](runtime, {})
    assert (newest(ward).state, newest(ward).reason) == (
        MoreState.FAILED, "The case was signed before more cells came; they were left out.",
    )  # fmt: skip
    assert drop_what_waits(ward) == 1
    assert list(runtime.store.list(f"{ward.parcel.prefix}/supplements/")) == []
    assert ward.centre.store.head(f"{ward.parcel.prefix}/manifest.json") is not None
    with runtime.database.session(read_only=True) as session:
        told = session.exec(select(AuditEntry).where(AuditEntry.action == "case.more_lapsed")).one()
    assert (told.actor, told.data["request"]) == ("system", request_id)
    assert supplements.lapse(runtime) == 0, "once is enough"


def test_request_to_a_node_that_is_shut_out_ends_and_none_is_made(ward: Ward) -> None:
    runtime = ward.centre.runtime
    ask(ward)
    with runtime.database.session() as session:
        session.get_one(Node, ward.node.node_id).state = EnrolmentState.REVOKED
    assert supplements.lapse(runtime) == 1
    assert newest(ward).reason == "The hospital's node was shut out before more cells came."
    with pytest.raises(ConflictError, match="shut out"):
        ask(ward)


def test_request_that_gets_nowhere_for_a_day_ends_and_can_be_made_again(ward: Ward) -> None:
    runtime, first = ward.centre.runtime, ask(ward)
    with runtime.database.session() as session:
        session.get_one(CaseSupplement, first).changed_at -= supplements.LONGEST - timedelta(minutes=1)
    assert supplements.lapse(runtime) == 0
    with pytest.raises(ConflictError, match="asked for already"):
        ask(ward)
    with runtime.database.session() as session:
        session.get_one(CaseSupplement, first).changed_at -= timedelta(minutes=1)
    assert supplements.lapse(runtime) == 1
    assert "for a day" in newest(ward).reason
    second = ask(ward)
    assert second != first
    place = upload(ward, second)
    drop_what_waits(ward)
    assert ward.centre.store.head(place) is not None, "only what was given up is removed"
    assert tasks.PERIODIC["cases.supplement_lapse"] <= 300
