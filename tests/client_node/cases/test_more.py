"""Count 100 more: a reader asks, the hospital's node looks further and sends, and the case has more cells."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import select

from client_node.analysis.rules import SITE_FILE
from client_node.cases import bundle
from client_node.cases.context import read_context
from client_node.cases.intake import send_flagged
from client_node.cases.ledger import Ledger
from client_node.cases.more import send_more
from client_node.cases.outbox import Outbox
from client_node.cases.sync import Sender
from client_node.centre import Centre
from client_node.home import NodeHome
from client_node.ipc import call, socket_path
from deploy.services.object_store import StoreAddress
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases import supplements, viewing
from server.cases.schemas import CaseView, MoreView
from server.models import AuditEntry, CaseSupplement, Node
from server.reviews import looking, second_opinions
from server.reviews import service as reviews
from shared.contracts.analysis import AnalysisOutput
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConflictError
from shared.contracts.ontology import CellClass
from shared.contracts.supplement import MoreState
from shared.crypto.signing import SigningKey
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, install_model
from tests.client_node.centre import LiveCentre, live_centre
from tests.client_node.nodes import joined

_C = CellClass
FIRST = (*[_C.NEUTROPHIL] * 6, *[_C.LYMPHOCYTE] * 2, *[_C.IMMATURE_GRANULOCYTE] * 4)

SENT_ANYHOW = """
[rules."lymphocytosis"]
limit = 0.1
least_cells = 1
least_total = 1
"""
"""The site's rule for fields of a cell or two, which this model takes for lymphocytes: they are bluest."""


@dataclass
class Counting:
    """A hospital whose smear is being read: node, analyser, centre, reader."""

    centre: LiveCentre
    home: NodeHome
    folder: Path
    reader: Principal
    case_id: str

    def scan(self, *classes: CellClass, first: int) -> None:
        """Have the scanner add pictures of cells to the smear's folder."""
        scan(self.folder, *classes, first=first)

    def ask(self, cells: int = 100) -> MoreView:
        """Ask for more, as the reader does."""
        with self.centre.runtime.database.session() as session:
            return supplements.ask(session, self.reader, self.case_id, cells=cells)

    def send(self) -> int:
        """Do the node's part."""
        with Centre.of(self.home) as client:
            return send_more(self.home, client)

    def take_in(self) -> MoreState | None:
        """Do the worker's part."""
        with self.centre.runtime.database.session(read_only=True) as session:
            row = session.exec(select(CaseSupplement).order_by(CaseSupplement.asked_at.desc())).first()  # type: ignore[attr-defined] # a column
        assert row is not None
        return supplements.take_in(self.centre.runtime, row.id)

    def case(self) -> CaseView:
        """The case as the centre has it."""
        with self.centre.runtime.database.session(read_only=True) as session:
            return cases.case_view(session, self.reader, self.case_id)

    def newest(self) -> MoreView:
        """The newest request."""
        with self.centre.runtime.database.session(read_only=True) as session:
            return supplements.of_case(session, self.reader, self.case_id)[0]


@pytest.fixture
def counting(tmp_path: Path, object_store: StoreAddress) -> Iterator[Counting]:
    folder = tmp_path / "smear"
    scan(folder, *FIRST, first=1)
    with at_work(tmp_path, object_store, folder, kind="gallery") as made:
        yield made


@pytest.fixture
def in_fields(tmp_path: Path, object_store: StoreAddress, smears: Path) -> Iterator[Counting]:
    """The same with real fields: two of a smear are at the centre."""
    folder = tmp_path / "smear"
    photograph(folder, smears, range(2))
    with at_work(tmp_path, object_store, folder, kind="fields") as made:
        yield made


def photograph(folder: Path, smears: Path, numbers: range) -> None:
    """Have the microscope's camera add real fields to a smear's folder."""
    folder.mkdir(exist_ok=True)
    fields = sorted((smears / "bccd").rglob("*.jpg"))
    for number in numbers:
        shutil.copy(fields[number], folder / f"{number:04d}.jpg")


def scan(folder: Path, *classes: CellClass, first: int) -> None:
    """Have the scanner add pictures of cells to a smear's folder."""
    for number, cls in enumerate(classes, start=first):
        save(folder / f"{number:04d}.png", cell_image(cls, seed=number))


@contextmanager
def at_work(tmp_path: Path, object_store: StoreAddress, folder: Path, *, kind: str) -> Iterator[Counting]:
    """Yield a node whose analyser runs and a centre where the smear in ``folder`` is claimed by a reader."""
    with live_centre(tmp_path / "server", object_store) as centre:
        home = joined(centre, tmp_path / "home")
        install_model(home.path, finds=kind == "fields")
        if kind == "fields":
            (home.path / SITE_FILE).write_text(SENT_ANYHOW)
        with analyser(home) as socket:
            made = Counting(centre, home, folder, centre.reader(), "")
            answer, _ = call(socket, {"op": "analyze", "paths": [str(folder)], "options": {"kind": kind}})
            smears = AnalysisOutput.model_validate(answer["output"]).smears
            (queued,) = send_flagged(home, smears, read_context(None))
            made.case_id = queued.case_id
            with Centre.of(home) as client:
                Sender(home, client).flush()
            centre.take_in(made.case_id)
            with centre.runtime.database.session() as session:
                cases.claim(session, made.reader, made.case_id)
            yield made


class analyser:  # noqa: N801 - used as a function
    """The resident analyser as a process of its own."""

    def __init__(self, home: NodeHome) -> None:
        self._home = home

    def __enter__(self) -> Path:
        command = [sys.executable, "-m", "client_node.analyser", "--home", str(self._home.path)]
        root = str(Path(__file__).parents[3])
        self._process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root})
        path, until = socket_path(self._home.path, "analyser"), time.monotonic() + 180
        while not path.exists():
            assert self._process.poll() is None
            assert time.monotonic() < until, "the analyser did not start"
            time.sleep(0.05)
        return path

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=120) == 0


def test_further_cells_join_the_case_and_what_the_reader_did_stays(counting: Counting) -> None:
    runtime, before = counting.centre.runtime, counting.case()
    changed = before.cells[0].cell_id
    with runtime.database.session() as session:
        reviews.reclassify(
            session, counting.reader, counting.case_id, cell_ids=[changed], label=_C.MONOCYTE, idempotency_key="k" * 8
        )
        looking.saw(session, counting.reader, counting.case_id, [_C.NEUTROPHIL, _C.LYMPHOCYTE])
    numbers = {cell.cell_id: cell.number for cell in before.cells}
    counting.scan(*[_C.NEUTROPHIL] * 5, _C.EOSINOPHIL, first=101)
    asked = counting.ask()
    assert (asked.state, asked.asked_by) == (MoreState.ASKED, "Dr. reader")
    with pytest.raises(ConflictError, match="already"):
        counting.ask()
    assert counting.send() == 1
    assert counting.newest().state is MoreState.SENT
    assert counting.take_in() is MoreState.CAME
    assert counting.take_in() is MoreState.CAME, "twice is once"
    came, after = counting.newest(), counting.case()
    assert (came.cells, came.fields, came.reason) == (6, 0, "")
    assert len(after.cells) == len(before.cells) + 6
    assert {cell.cell_id: cell.number for cell in after.cells if cell.cell_id in numbers} == numbers
    assert sorted(cell.number for cell in after.cells)[-6:] == list(range(13, 19))
    mine = next(cell for cell in after.cells if cell.cell_id == changed)
    assert (mine.current_class, mine.changed_by) == (_C.MONOCYTE, "Dr. reader")
    assert all(cell.added_by is None for cell in after.cells)
    assert after.version > before.version
    assert (after.ai_differential[_C.NEUTROPHIL].count, after.differential[_C.EOSINOPHIL].count) == (11, 1)
    assert after.quality.white_cells == 18
    with runtime.database.session() as session:
        assert looking.seen_by(session, counting.reader, counting.case_id) == [_C.LYMPHOCYTE]
        content, kind = viewing.blob(session, runtime, counting.reader, counting.case_id, after.cells[-1].blob)
        new = next(cell for cell in after.cells if cell.number == 18)
        assert viewing.blob(session, runtime, counting.reader, counting.case_id, new.blob)[0].startswith(b"\x89PNG")
        told = session.exec(select(AuditEntry).where(AuditEntry.action == "case.more_came")).one()
    assert content
    assert kind == "image/png"
    assert told.data["cells"] == 6
    whats = [entry.what for entry in Ledger(counting.home).entries(subject=counting.case_id)]
    assert whats[-1] == f"supplements/{came.request_id}/manifest.json"
    assert counting.send() == 0
    assert list(counting.home.parcels.glob("HV-*.*")) == []


@pytest.mark.data
def test_further_fields_join_the_case_behind_its_own(in_fields: Counting, smears: Path) -> None:
    runtime, before = in_fields.centre.runtime, in_fields.case()
    assert {cell.field for cell in before.cells} == {0, 1}
    second = in_fields.centre.reader("second")
    with runtime.database.session() as session:
        second_opinions.ask(
            session, in_fields.reader, in_fields.case_id, of=second.user_id, question="", hides_ai=False
        )
    for more in (range(2, 4), range(4, 5)):  # twice, so that what came stands behind what came before
        photograph(in_fields.folder, smears, more)
        in_fields.ask()
        assert in_fields.send() == 1
        assert in_fields.take_in() is MoreState.CAME, in_fields.newest().reason
        assert in_fields.newest().fields == len(more)
    after = in_fields.case()
    kept = bundle.load_smear(in_fields.home, Outbox(in_fields.home).get(in_fields.case_id).smear_id)
    assert len(after.fields) == len(kept.fields) == 5
    assert {cell.cell_id: (cell.field, cell.box) for cell in after.cells} == {
        cell.id: (cell.field, cell.box) for cell in kept.cells
    }
    assert {cell.field for cell in after.cells} >= {0, 1, 2, 4}
    assert [(field.width, field.height) for field in after.fields] == [
        (field.width, field.height) for field in kept.fields
    ]
    with runtime.database.session(read_only=True) as session:
        shown = [
            viewing.blob(session, runtime, in_fields.reader, in_fields.case_id, f"field-{index}.jpg")[0]
            for index in range(5)
        ]
        seen = cases.case_view(session, second, in_fields.case_id)
    assert len(set(shown)) == 5
    assert seen.blind is not None
    assert {cell.cell_id for cell in before.cells} <= {cell.cell_id for cell in seen.cells}


def test_more_than_the_policy_lets_go_is_not_sent_though_it_is_found_already(counting: Counting) -> None:
    counting.scan(*[_C.LYMPHOCYTE] * 3, first=601)
    lost = counting.ask()
    counting.send()
    store, hospital = counting.centre.runtime.store, counting.home.config().hospital_id
    store.delete(f"cases/{hospital}/{counting.case_id}/supplements/{lost.request_id}/manifest.json")
    assert counting.take_in() is MoreState.FAILED
    policy = counting.home.policy_file
    policy.write_text(policy.read_text().replace("most_more_cells = 400", "most_more_cells = 2"))
    counting.ask(cells=1)
    assert counting.send() == 0
    assert counting.newest().reason == "The hospital's policy allows 2 cells more of a smear at most."
    assert len(counting.case().cells) == len(FIRST)


def test_hospital_refuses_with_its_reason(counting: Counting) -> None:
    counting.ask()
    assert counting.send() == 0
    nothing = "All fields of this smear that the hospital keeps have been looked at already."
    assert (counting.newest().state, counting.newest().reason) == (MoreState.REFUSED, nothing)
    policy = counting.home.policy_file.read_text()
    counting.home.policy_file.write_text(policy.replace("more_fields = true", "more_fields = false"))
    counting.scan(_C.NEUTROPHIL, first=201)
    counting.ask()
    counting.send()
    assert counting.newest().reason == "The hospital's policy does not allow sending more fields of a smear."
    counting.home.policy_file.write_text(policy.replace("most_more_cells = 400", "most_more_cells = 50"))
    counting.ask()
    counting.send()
    assert counting.newest().reason == "The hospital's policy allows 50 cells more of a smear at most."
    assert len(counting.case().cells) == len(FIRST)
    assert Ledger(counting.home).verify() > 0


def test_what_was_found_and_never_arrived_comes_with_the_next_request(counting: Counting) -> None:
    counting.scan(*[_C.LYMPHOCYTE] * 3, first=301)
    first = counting.ask()
    counting.send()
    store = counting.centre.runtime.store
    hospital = counting.home.config().hospital_id
    manifest = f"cases/{hospital}/{counting.case_id}/supplements/{first.request_id}/manifest.json"
    store.put(manifest, store.get(manifest, most=10**6).replace(b'"priority"', b'"priorita"'))
    assert counting.take_in() is MoreState.FAILED
    assert "cannot be read" in counting.newest().reason
    assert len(counting.case().cells) == len(FIRST)
    counting.ask()
    assert counting.send() == 1
    assert counting.take_in() is MoreState.CAME
    assert counting.newest().cells == 3


def test_supplement_signed_by_another_is_not_taken_in(counting: Counting) -> None:
    counting.scan(_C.LYMPHOCYTE, first=401)
    counting.ask()
    counting.send()
    with counting.centre.runtime.database.session() as session:
        node = session.exec(select(Node)).one()
        node.signing_key = SigningKey.generate().public.to_base64()
    assert counting.take_in() is MoreState.FAILED
    assert "not signed" in counting.newest().reason


def test_request_that_the_centre_did_not_sign_is_not_worked_on(counting: Counting) -> None:
    counting.scan(_C.LYMPHOCYTE, first=501)
    counting.ask()
    with Centre.of(counting.home) as client:
        (signed,) = client.more_requests()
        forged = signed.model_copy(update={"request": signed.request.model_copy(update={"cells": 999})})
        client.more_requests = lambda: (forged,)  # type: ignore[method-assign] # what an attacker in between would say
        assert send_more(counting.home, client) == 0
    assert counting.newest().state is MoreState.ASKED
    assert canonical_bytes(signed.request) != canonical_bytes(forged.request)
    assert Outbox(counting.home).get(counting.case_id)


def test_page_says_when_the_node_is_too_old_or_silent(counting: Counting) -> None:
    asked = counting.ask()
    assert asked.note == ""
    with counting.centre.runtime.database.session() as session:
        node = session.exec(select(Node)).one()
        node.last_seen_at, node.heartbeat, node.software = asked.asked_at.replace(year=2100), {"protocol": 2}, "0.1"
    assert counting.newest().note == "The hospital's node (0.1) is too old to send more: it has to be updated."
    with counting.centre.runtime.database.session() as session:
        node = session.exec(select(Node)).one()
        node.last_seen_at = None
        row = session.exec(select(CaseSupplement)).one()
        row.changed_at -= supplements.SILENT
    assert "has not been heard since" in counting.newest().note
