"""Hospitals and nodes as others see them."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from shared.contracts.enrolment import EnrolmentState, LedgerTotals, NodeMode


class NodePrincipal(BaseModel):
    """A node that proved who it is by a signed request."""

    model_config = ConfigDict(frozen=True)

    node_id: str
    hospital_id: str
    mode: NodeMode
    signing_key: str
    envelope_key: str

    @property
    def actor(self) -> str:
        """How the audit names this node."""
        return f"node:{self.node_id}"


class NodeView(BaseModel):
    """A node on the nodes page."""

    id: str
    hospital_id: str
    hospital_name: str
    mode: NodeMode
    state: EnrolmentState
    fingerprint: str
    software: str
    enrolled_at: datetime
    last_seen_at: datetime | None
    online: bool
    """Seen within the last 30 s."""
    model_version: str | None
    processes: dict[str, str]
    ledger: LedgerTotals
    outbox: int
    attention: list[str]
    flower_node_id: str | None = None
    """Which SuperLink node it is, once registered."""


class HospitalView(BaseModel):
    """A hospital and its nodes."""

    id: str
    name: str
    nodes: list[NodeView]
    gate_tolerance: float | None = None
    """What it may lose by a model, where it is stricter than the network."""
