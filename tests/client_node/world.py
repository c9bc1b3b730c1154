"""A node's home beside a real centre whose node API answers over HTTP on loopback."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from PIL import Image

from client_node.analysis.store import SmearStore, Trace
from client_node.cases.bundle import pack
from client_node.cases.identity import IdentityStore
from client_node.cases.outbox import Outbox
from client_node.centre import Centre as CentreClient
from client_node.home import NodeConfig, NodeHome
from client_node.policy import write_default_policy
from server.app import create_node_api
from server.cases.ingest import ingest
from shared.contracts.analysis import Smear
from shared.contracts.case import Priority
from shared.contracts.enrolment import NodeMode
from shared.contracts.ontology import CellClass
from shared.crypto.signing import VerifyKey
from shared.processes import LOOPBACK, free_port
from shared.reporting.identity import Identity
from tests.factories import Centre, NodeIdentity, cell_image, make_context, make_smear

WHO = Identity.model_validate({"name": "Lind, Maja", "patient_id": "MRN-7", "birth_date": "1961-04-03"})


@contextmanager
def served(centre: Centre) -> Iterator[str]:
    """Serve a centre's node API in a thread; yield its address."""
    port = free_port()
    config = uvicorn.Config(create_node_api(centre.runtime), host=LOOPBACK, port=port, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def make_home(
    path: Path, centre: Centre, node: NodeIdentity, url: str, *, mode: NodeMode = NodeMode.TRAINING
) -> NodeHome:
    """Make the home of an approved node, as `init` leaves it."""
    home = NodeHome(path)
    for folder in (home.keys, home.reports, home.models, home.smears, home.run):
        folder.mkdir(parents=True)
    vault = centre.runtime.vault
    home.signing_key.write_bytes(node.signing.to_pem())
    home.envelope_key.write_bytes(node.envelope.to_pem())
    home.identity_key.write_bytes(b"i" * 32)
    home.pseudonym_key.write_bytes(b"p" * 32)
    home.server_keys.write_text(vault.public_keys().model_dump_json())
    write_default_policy(home, release_key=VerifyKey.from_base64(vault.public_keys().release).key_id)
    home.write_config(
        NodeConfig(
            hospital_id=node.hospital_id,
            hospital_name="Hospital A",
            node_id=node.node_id,
            mode=mode,
            server_url=url,
            server_id=vault.server_id,
            enrolled_at=datetime.now(UTC),
        )
    )
    return home


def keep_smear(home: NodeHome, smear: Smear) -> None:
    """Keep a smear as the analyser does: pictures of its field and cells, and the analysis."""
    store = SmearStore(home.path)
    folder = store.folder(smear.id)
    for part in ("fields", "cells"):
        (folder / part).mkdir(parents=True)
    Image.new("RGB", (320, 240), (230, 220, 226)).save(folder / "fields" / "0.jpg")
    traces = {}
    for number, cell in enumerate(smear.cells):
        # Every cell's picture is another one: equal pictures would be one cell in the catalogue.
        (folder / "cells" / f"{cell.id}.png").write_bytes(cell_image(cell.cls, size=96 + number))
        traces[cell.id] = Trace("0" * 64, cell.box, None)
    store.commit(smear, traces)


@dataclass
class Site:
    """A hospital's node, its client of the centre, and the centre."""

    home: NodeHome
    client: CentreClient
    centre: Centre

    def send_case(self, *, identity: Identity | None = WHO, classes: tuple[CellClass, ...] | None = None) -> str:
        """Send a smear to the centre, which takes it in; return the case's id."""
        smear = make_smear(classes) if classes else make_smear()
        keep_smear(self.home, smear)
        outbox = Outbox(self.home)
        case, _ = outbox.enqueue(smear_id=smear.id, priority=Priority.URGENT, context=make_context())
        if identity is not None:
            IdentityStore(self.home).put(case.case_id, identity)
        parts = pack(self.home, case_id=case.case_id, smear_id=smear.id, context=case.context, priority=case.priority)
        hospital = self.home.config().hospital_id
        for part in parts:
            content = (self.home.parcels / case.case_id / part.name).read_bytes()
            self.centre.store.put(f"cases/{hospital}/{case.case_id}/{part.name}", content)
        ingest(self.centre.runtime, hospital_id=hospital, case_id=case.case_id)
        return case.case_id

    def told(self, kind: str) -> list[str]:
        """Return the subjects of what this node told the centre."""
        from client_node.cases.ledger import Ledger

        return [entry.subject for entry in Ledger(self.home).entries() if entry.kind == kind]


def read_json(file: Path) -> dict[str, object]:
    """Return a JSON object."""
    value = json.loads(file.read_text())
    assert isinstance(value, dict)
    return value
