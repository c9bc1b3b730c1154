"""How a hospital's node joins: the one-time kit, the request, and what an approved node is told."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from shared.contracts.analysis import Contract
from shared.contracts.training import Identifier


class NodeMode(StrEnum):
    """What a node is for."""

    TRAINING = "training"
    INFERENCE = "inference"


class ServerKeys(Contract):
    """The centre's public keys, base64 of raw bytes. A node pins them from its kit."""

    signing: str
    """Ed25519: reports, enrolment answers."""
    release: str
    """Ed25519: model cards and the Flower app."""
    envelope: str
    """HPKE public key (see `shared.crypto.envelope`): cases are sealed to it."""


class Kit(Contract):
    """What `hospital enrol` prints and `init` reads: a JSON file, used once."""

    format: int = 1
    hospital_id: Identifier
    hospital_name: str
    server_url: str
    """Base URL of the node API, e.g. ``https://centre.example:8443``."""
    server_id: Identifier
    """Fingerprint of the centre's signing key: a kit for another server shows at once."""
    ca_pem: str
    keys: ServerKeys
    token: str = Field(min_length=32)
    expires_at: datetime
    signature: str = ""
    """Ed25519 (base64) by the centre's signing key over the canonical bytes of the kit with an empty signature."""


class NodeKeys(Contract):
    """A node's public keys. The private halves never leave the node."""

    signing: str
    """Ed25519 raw, base64."""
    envelope: str
    """HPKE public key, base64: reports are sealed to it."""
    flower: str
    """EC P-384 in OpenSSH format, for Flower's node authentication."""


class EnrolmentRequest(Contract):
    """POST /api/node/v1/enrolments (signed by the new signing key)."""

    token: str
    hospital_id: Identifier
    keys: NodeKeys
    mode: NodeMode = NodeMode.TRAINING
    software: str


class EnrolmentState(StrEnum):
    """Where an enrolment stands."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"


class EnrolmentStatus(Contract):
    """Answer of POST and GET /api/node/v1/enrolments/{node_id}."""

    node_id: Identifier
    hospital_id: Identifier
    state: EnrolmentState
    fingerprint: str
    """Shown on both sides, compared by people: `shared.crypto.signing.fingerprint` over the three public keys."""
    superlink: str | None = None
    """host:port of the SuperLink; told once approved."""


class LedgerTotals(Contract):
    """What left the building so far."""

    cases: int = 0
    bytes_cases: int = 0
    bytes_updates: int = 0
    last_at: datetime | None = None


HEARTBEAT_PROTOCOL: Final = 3
"""What this software speaks: 1 knows no ``lost_seconds`` and ``asked_seconds``, 2 no ``more_waiting`` and no packed
tensors."""
PACKED_PROTOCOL: Final = 3
"""From this on a node reads and writes packed tensors; see `shared.packing`."""


class Heartbeat(Contract):
    """POST /api/node/v1/heartbeat, every few seconds.

    The centre is brought to a new version before its nodes: it understands what an earlier node leaves out, each field
    added since protocol 1 having a default.
    """

    software: str
    mode: NodeMode
    model_version: Identifier | None
    processes: dict[str, str]
    """agent, analyser, trainer, supernode → running | starting | stopped | failed."""
    ledger: LedgerTotals
    outbox: int
    """Entries waiting to be sent."""
    attention: tuple[str, ...] = ()
    """One-line remedies for what needs attention."""
    protocol: int = Field(default=1, ge=1)
    """What the node can read of the answer, and of a round: `HEARTBEAT_PROTOCOL` of its software."""


class HeartbeatReply(Contract):
    """What the centre has for the node.

    A node refuses fields that it does not know: what came later is told from the protocol on that has it, and left out
    where it is None.
    """

    current_model: Identifier | None
    reports_waiting: int
    superlink: str | None
    lost_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False, exclude_if=lambda value: value is None)
    """For so long the SuperLink has heard nothing of this node's SuperNode; None: it hears it, or does not know it."""
    asked_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False, exclude_if=lambda value: value is None)
    """For so long an answer of this node to a round is awaited; None: none is."""
    more_waiting: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)
    """How many requests for more of a smear wait (`shared.contracts.supplement`); None: not told to such a node."""
