"""A real centre's folder for tests, and a node's side of enrolment."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel
from sqlmodel import Session

from server.accounts import service as accounts
from server.accounts.roles import Role
from server.accounts.schemas import COMMAND_LINE, Principal
from server.db.session import Database
from server.runtime import Runtime
from server.settings import ServerSettings, load_settings
from server.setup import initialise
from server.vault.file_vault import FileVault
from shared.contracts.enrolment import EnrolmentRequest, Kit, NodeKeys
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.pki import flower_key
from shared.crypto.signing import SigningKey
from shared.crypto.tokens import PROOF_HEADER, make_proof
from shared.storage import MemoryStore

PASSWORD = "correct horse battery"


def make_runtime(folder: Path) -> Runtime:
    """Make a centre as `hematovision-server init` does, with an object store in memory.

    ``folder`` is a test's own; the first test of a session makes the centre, the others copy it.
    """
    template = folder.parent / "centre-template"
    if not template.exists():
        initialise(ServerSettings(home=template, superlink="127.0.0.1:9092", blind_share=0.0))
    shutil.copytree(template, folder / "centre")
    settings = load_settings(folder / "centre")
    return Runtime(
        settings=settings,
        database=Database(settings.effective_database_url),
        store=MemoryStore(),
        vault=FileVault(settings.keys),
    )


def add_user(session: Session, username: str, role: Role = Role.HEMATOLOGIST, hospital_id: str | None = None) -> str:
    """Add an account with `PASSWORD`; return its id."""
    return accounts.create_user(
        session,
        actor=COMMAND_LINE,
        username=username,
        display_name=f"Dr. {username}",
        role=role,
        password=PASSWORD,
        hospital_id=hospital_id,
    ).id


def principal(role: Role, hospital_id: str | None = None) -> Principal:
    """Return somebody with a role."""
    return Principal(user_id="u1", username="somebody", display_name="Somebody", role=role, hospital_id=hospital_id)


@dataclass
class NodeSide:
    """What a node holds: private keys, and how it signs requests."""

    server_id: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    keys: NodeKeys = field(init=False)

    def __post_init__(self) -> None:
        envelope = EnvelopePrivateKey.generate().public.to_base64()
        self.keys = NodeKeys(signing=self.key.public.to_base64(), envelope=envelope, flower=flower_key()[1])

    def request(self, kit: Kit) -> EnrolmentRequest:
        """Return the request to join with ``kit``."""
        return EnrolmentRequest(
            token=kit.token, hospital_id=kit.hospital_id, keys=self.keys, software="hematovision 0.1.0"
        )

    def headers(self, method: str, path: str, body: bytes = b"", *, node_id: str | None = None) -> dict[str, str]:
        """Return the headers that prove a request."""
        issuer = node_id or self.key.public.key_id
        proof = make_proof(self.key, node_id=issuer, server_id=self.server_id, method=method, path=path, body=body)
        return {PROOF_HEADER: proof, "Content-Type": "application/json"}


def body_of(model: BaseModel) -> bytes:
    """Return a contract as it travels."""
    return model.model_dump_json(by_alias=True).encode()
