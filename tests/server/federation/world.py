"""A small centre for tests of runs and models: a database, hospitals, approved nodes and who acts."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlmodel import SQLModel

import server.models
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.db.session import Database
from server.hospitals.schemas import NodePrincipal
from server.models import Hospital, Node
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.enrolment import EnrolmentState, Heartbeat, LedgerTotals, NodeMode
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census, ClassCensus
from shared.crypto.signing import SigningKey
from shared.storage import MemoryStore, ObjectStore

assert server.models.__all__  # importing the package registers every table


def person(role: Role, hospital_id: str | None = None) -> Principal:
    return Principal(user_id=f"id-{role}", username=role, display_name=role.label, role=role, hospital_id=hospital_id)


COORDINATOR = person(Role.COORDINATOR)


def new_database(tmp_path: Path | None = None, hospitals: tuple[str, ...] = ("north", "south")) -> Database:
    """Return a database (in memory without a folder) with these hospitals.

    Each has an approved training node that Flower knows as 1, 2, …
    """
    database = Database(f"sqlite:///{tmp_path / 'centre.sqlite'}" if tmp_path else "sqlite://")
    SQLModel.metadata.create_all(database.engine)
    with database.session() as session:
        for name in hospitals:
            session.add(Hospital(id=name, name=f"{name.title()} Hospital"))
        session.flush()
        for number, name in enumerate(hospitals, start=1):
            session.add(new_node(name, flower_node_id=str(number)))
    return database


@contextmanager
def new_centre(
    folder: Path, hospitals: tuple[str, ...] = ("north", "south"), *, store: ObjectStore | None = None
) -> Iterator[Runtime]:
    """Yield a centre in memory, but for its keys below ``folder``, with the hospitals of `new_database`."""
    database, home = new_database(hospitals=hospitals), folder / "centre"
    vault = FileVault.create(home / "keys")
    try:
        yield Runtime(settings=ServerSettings(home=home), database=database, store=store or MemoryStore(), vault=vault)
    finally:
        database.dispose()


def node_key(name: str) -> SigningKey:
    """Return the key that a node of these tests signs with, by its Flower id or else its own: the same each time."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))


def new_node(
    hospital_id: str,
    *,
    node_id: str | None = None,
    flower_node_id: str | None = None,
    flower_key: str = "f",
    mode: NodeMode = NodeMode.TRAINING,
    state: EnrolmentState = EnrolmentState.APPROVED,
    protocol: int | None = None,
) -> Node:
    """Return a node, approved for training unless said otherwise; with a ``protocol`` it has sent a heartbeat."""
    return Node(
        id=node_id or f"node-{hospital_id}",
        hospital_id=hospital_id,
        mode=mode,
        state=state,
        signing_key=node_key(flower_node_id or node_id or f"node-{hospital_id}").public.to_base64(),
        envelope_key="e",
        flower_key=flower_key,
        fingerprint="0000",
        software="test",
        flower_node_id=flower_node_id,
        heartbeat=None if protocol is None else beat(protocol),
    )


def beat(protocol: int) -> dict[str, Any]:
    """Return a heartbeat of a node whose software speaks ``protocol``, as it is kept."""
    said = Heartbeat(
        software="test", mode=NodeMode.TRAINING, model_version=None, processes={}, ledger=LedgerTotals(), outbox=0,
        protocol=protocol,
    )  # fmt: skip
    return said.model_dump(mode="json")


def speaks(database: Database, protocols: dict[str, int]) -> None:
    """Have the hospitals' nodes of `new_database` say what they speak, as a heartbeat does."""
    with database.session() as session:
        for name, protocol in protocols.items():
            node = session.get(Node, f"node-{name}")
            assert node is not None
            node.heartbeat = beat(protocol)


def node_of(hospital_id: str) -> NodePrincipal:
    return NodePrincipal(
        node_id=f"node-{hospital_id}",
        hospital_id=hospital_id,
        mode=NodeMode.TRAINING,
        signing_key="s",
        envelope_key="e",
    )


def census(**train: int) -> Census:
    """Return a census with this many training cells a class."""
    rows = [
        ClassCensus.model_validate({"source": "test", "class": CellClass(name), "train": count, "val": 2, "test": 2})
        for name, count in train.items()
    ]
    return Census(rows=tuple(rows), groups=3)
