"""What a heartbeat's answer says of a node that the centre does not hear."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from server.federation import repository as runs
from server.federation.book import RunBook, Traffic
from server.hospitals import service
from server.models import Node
from server.models.base import utc_now
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.enrolment import (
    HEARTBEAT_PROTOCOL,
    EnrolmentState,
    Heartbeat,
    HeartbeatReply,
    LedgerTotals,
    NodeMode,
)
from shared.storage import MemoryStore
from tests.server.federation.fleet import new_run
from tests.server.federation.world import COORDINATOR, new_database, new_node, node_of

BEAT = Heartbeat(
    software="test",
    mode=NodeMode.TRAINING,
    model_version=None,
    processes={},
    ledger=LedgerTotals(),
    outbox=0,
    protocol=HEARTBEAT_PROTOCOL,
)
FIRST_BEAT = (
    b'{"software":"hematovision 0.1.0","mode":"training","model_version":null,"processes":{"agent":"running"},'
    b'"ledger":{"cases":0,"bytes_cases":0,"bytes_updates":0,"last_at":null},"outbox":0}'
)
"""As nodes of protocol 1 send it: their software must be able to read the answer."""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    database = new_database()
    vault = FileVault.create(tmp_path / "keys")
    yield Runtime(ServerSettings(home=tmp_path), database, MemoryStore(), vault)
    database.dispose()


def _beat(runtime: Runtime, hospital: str) -> HeartbeatReply:
    with runtime.database.session() as session:
        return service.heartbeat(session, runtime, node_of(hospital), BEAT)


def test_node_that_the_superlink_hears_no_more_is_told_for_how_long(runtime: Runtime) -> None:
    ago = utc_now() - timedelta(seconds=70)

    def keep(session: Session, *online: str) -> list[str]:
        return runs.keep_presence(session, set(online), ago)

    with runtime.database.session() as session:
        session.add(
            Node(
                **{
                    **session.get_one(Node, "node-south").model_dump(),
                    "id": "x",
                    "signing_key": "x",
                    "flower_node_id": None,
                }
            )
        )
        assert keep(session, "1", "2") == []
        assert keep(session, "2") == ["node-north"]
        assert runs.keep_presence(session, {"2"}, utc_now()) == []
    assert 69 < (_beat(runtime, "north").lost_seconds or 0) < 80
    assert _beat(runtime, "south").lost_seconds is None
    with runtime.database.session() as session:
        keep(session, "1", "2")
    assert _beat(runtime, "north").lost_seconds is None


def test_node_is_told_for_how_long_its_answer_is_awaited(runtime: Runtime) -> None:
    run_id = new_run(runtime)
    book = RunBook(runtime.database, run_id)
    book.begin("7")
    assert _beat(runtime, "north").asked_seconds is None
    book.begin_round(1, ["north", "south"], 1)
    assert (_beat(runtime, "north").asked_seconds or 0.0) >= 0.0
    book.refused(1, "north", "No.", Traffic(up=1, down=1))
    assert _beat(runtime, "north").asked_seconds is None
    assert _beat(runtime, "south").asked_seconds is not None
    book.end_round(1)
    assert _beat(runtime, "south").asked_seconds is None


def test_only_the_one_training_node_of_a_hospital_is_told_that_it_is_awaited(runtime: Runtime) -> None:
    """A round asks one node of each hospital: the others would restart for nothing."""
    book = RunBook(runtime.database, new_run(runtime))
    book.begin("7")
    book.begin_round(1, ["north", "south"], 1)
    with runtime.database.session() as session:
        session.add(new_node("north", node_id="second"))
        session.add(new_node("south", node_id="reader", mode=NodeMode.INFERENCE))
        session.add(new_node("south", node_id="gone", state=EnrolmentState.REVOKED))
    assert _beat(runtime, "north").asked_seconds is None
    assert _beat(runtime, "south").asked_seconds is not None


def test_node_of_an_earlier_version_is_understood_and_reads_the_answer_in_the_middle_of_a_round(
    runtime: Runtime,
) -> None:
    """It leaves out what came later, and refuses an answer with fields that it does not know."""
    book = RunBook(runtime.database, new_run(runtime))
    book.begin("7")
    book.begin_round(1, ["north", "south"], 1)
    with runtime.database.session() as session:
        runs.keep_presence(session, set(), utc_now() - timedelta(seconds=70))
    assert {"lost_seconds", "asked_seconds"} < set(_beat(runtime, "north").model_dump(mode="json"))
    with runtime.database.session() as session:
        reply = service.heartbeat(session, runtime, node_of("north"), Heartbeat.model_validate_json(FIRST_BEAT))
        (view,) = [node for node in service.list_hospitals(session, COORDINATOR)[0].nodes if node.id == "node-north"]
    assert set(reply.model_dump(mode="json")) == {"current_model", "reports_waiting", "superlink"}
    assert (view.processes, view.attention) == ({"agent": "running"}, [])
