"""A flagged smear leaves as one sealed case, whatever is killed, and its report and labels come home."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlmodel import select

from client_node.cases.bundle import Part
from client_node.cases.context import read_context
from client_node.cases.intake import send_flagged
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox, SendState
from client_node.cases.reports import fetch_reports
from client_node.cases.sync import Sender
from client_node.centre import Centre
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Origin
from client_node.home import NodeHome
from deploy.services.object_store import StoreAddress
from server.cases import service as cases
from server.models import Case
from server.reports.tasks import TASKS
from server.reviews import service as reviews
from shared.contracts.case import CaseState
from shared.contracts.ontology import CellClass
from shared.processes import LOOPBACK
from tests.client_node.centre import LiveCentre, live_centre
from tests.client_node.nodes import IDENTITY, context_file, joined, keep_smear
from tests.reading import look_through, sign_input

SEND = """
import sys
from client_node.cases.sync import Sender
from client_node.centre import Centre
Sender(sys.argv[1], Centre.of(sys.argv[1])).flush()
"""


@pytest.fixture
def centre(tmp_path: Path, object_store: StoreAddress) -> Iterator[LiveCentre]:
    with live_centre(tmp_path / "server", object_store) as made:
        yield made


def send(home: NodeHome) -> None:
    with Centre.of(home) as client:
        Sender(home, client).flush()


def queue(home: NodeHome, folder: Path) -> str:
    (case,) = send_flagged(home, (keep_smear(home),), read_context(context_file(folder)))
    assert case.new
    return case.case_id


def test_case_leaves_sealed_and_its_report_comes_home(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    case_id = queue(home, tmp_path)
    send(home)
    assert Outbox(home).get(case_id).state is SendState.COMMITTED
    parcel = b"".join(file.read_bytes() for file in (home.parcels / case_id).rglob("*") if file.is_file())
    assert not any(word in parcel for word in (b"Quillfeather", b"MRN-77001", b"1950"))
    centre.take_in(case_id)
    send(home)
    assert Outbox(home).get(case_id).state is SendState.RECEIVED
    assert not (home.parcels / case_id).exists()
    database = centre.runtime.database
    with database.session() as session:
        row = session.exec(select(Case)).one()
        assert "Quillfeather" not in str(row.model_dump())
        assert (row.context["age_band"], row.smear_id) == ("70-79", case_id)
    reader = centre.reader()
    with database.session() as session:
        cases.claim(session, reader, case_id)
        label = CellClass.BAND_NEUTROPHIL
        reviews.reclassify(session, reader, case_id, cell_ids=["c1"], label=label, idempotency_key="k")
        look_through(session, reader, case_id)
        signing = sign_input(session, reader, case_id, impression="Left shift.", password=centre.password)
        report_id = reviews.sign(session, reader, centre.runtime, case_id, signing)
    TASKS["reports.render"](centre.runtime, {"report_id": report_id})
    with Centre.of(home) as client:
        assert fetch_reports(home, client) == (1, 1)
        assert fetch_reports(home, client) == (0, 0)
    folder = home.reports / f"{report_id}-v1"
    assert (folder / "acknowledged.json").is_file()
    assert IDENTITY["patient_id"].encode() in (folder / "hospital" / "report.hl7").read_bytes()
    assert IDENTITY["patient_id"].encode() not in (folder / "report.hl7").read_bytes()
    assert (folder / "hospital" / "report.pdf").read_bytes().startswith((folder / "report.pdf").read_bytes())
    feedback = [cell for cell in Catalogue(home.path).cells(split="train") if cell.origin is Origin.FEEDBACK]
    assert [cell.cls for cell in feedback] == [CellClass.BAND_NEUTROPHIL]
    with database.session() as session:
        assert session.exec(select(Case)).one().state is CaseState.CLOSED


def test_smear_is_never_sent_twice(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    smear, context = keep_smear(home), read_context(None)
    (first,) = send_flagged(home, (smear,), context)
    (again,) = send_flagged(home, (smear,), context)
    assert (again.case_id, again.new) == (first.case_id, False)


def test_damaged_parcel_keeps_no_other_case_back(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    damaged, sound = queue(home, tmp_path), queue(home, tmp_path)
    box = Outbox(home)
    box.packed(damaged, [Part("key.json", "0" * 64, 1)])  # as after a power cut: noted, but not on the disk
    send(home)
    assert box.get(sound).state is SendState.COMMITTED
    assert (box.get(damaged).state, box.get(damaged).attempts) == (SendState.PACKED, 1)
    assert box.waiting() == 2


def test_unflagged_smear_stays(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    smear = keep_smear(home)
    only_quality = smear.model_copy(update={"flags": tuple(f for f in smear.flags if f.kind == "quality")})
    assert send_flagged(home, (only_quality,), read_context(None)) == []


def test_case_waits_while_the_centre_is_away(tmp_path: Path, object_store: StoreAddress) -> None:
    with live_centre(tmp_path / "server", object_store) as centre:
        home = joined(centre, tmp_path / "home")
    case_id = queue(home, tmp_path)
    send(home)
    waiting = Outbox(home).get(case_id)
    assert (waiting.state, waiting.attempts) == (SendState.PACKED, 1)
    assert waiting.problem is not None
    assert "does not answer" in waiting.problem
    assert Outbox(home).due() == []


def test_killed_at_any_point_sends_exactly_one_case(tmp_path: Path, object_store: StoreAddress) -> None:
    with (
        slow_road(object_store.endpoint) as endpoint,
        live_centre(tmp_path / "server", object_store, endpoint=endpoint) as centre,
    ):
        home = joined(centre, tmp_path / "home")
        case_id = queue(home, tmp_path)
        for parts in (0, 2, 9, 16):
            kill_after(home, parts)
        send(home)
        centre.take_in(case_id)
        send(home)
        assert Outbox(home).get(case_id).state is SendState.RECEIVED
        with centre.runtime.database.session() as session:
            assert [row.id for row in session.exec(select(Case))] == [case_id]
    entries = Ledger(home).entries(subject=case_id)
    assert len({entry.what for entry in entries}) == len(entries) == 22 + 1 + 3
    assert entries[-1].what == "manifest.json"
    assert Ledger(home).verify() > len(entries)


def kill_after(home: NodeHome, parts: int) -> None:
    """Start sending in a process of its own and kill it once so many parts have left."""
    root = str(Path(__file__).parents[3])
    child = subprocess.Popen([sys.executable, "-c", SEND, str(home.path)], env={**os.environ, "PYTHONPATH": root})
    try:
        deadline = time.monotonic() + 30
        while uploaded(home) <= parts and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def uploaded(home: NodeHome) -> int:
    """How many parts have left; -1 before the outbox is packed."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(home.outbox)) as connection:
        return int(connection.execute("SELECT coalesce(sum(uploaded), -1) FROM part").fetchone()[0])
    return -1


class slow_road:  # noqa: N801 - used as a function
    """A TCP forwarder that holds every piece back a little, so that there is a middle to be killed in."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server((LOOPBACK, 0))
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> str:
        self._spawn(self._accept)
        return f"{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._spawn(self._pump, near, far)
            self._spawn(self._pump, far, near)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(0.01)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _spawn(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]  # a bound method
        self._threads.append(thread)
        thread.start()
