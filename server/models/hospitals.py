"""Hospitals, their one-time kits and their nodes."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.models.base import new_id, utc_now
from shared.contracts.enrolment import EnrolmentState, NodeMode


class Hospital(SQLModel, table=True):
    """A hospital of the network: the tenant."""

    __tablename__ = "hospital"

    id: str = Field(primary_key=True)
    name: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    target_minutes: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Turn-around target per priority, minutes; defaults apply to what is missing."""
    gate_tolerance: float | None = None
    """Share of accuracy or of a class's recall that it may lose by a model; None: what the network allows."""
    shares_references: bool = False
    """Whether cells of its signed cases may stand beside other hospitals' cells as references."""
    contact: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """`server.hospitals.bedside.Contact`: whom a reader phones; empty: nobody is named."""
    blood_limits: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Its reference intervals, `server.hospitals.bedside.Limits`; defaults apply to what is missing."""


class EnrolmentKit(SQLModel, table=True):
    """A kit that was handed out; only the token's SHA-256 is kept."""

    __tablename__ = "enrolment_kit"

    id: str = Field(default_factory=new_id, primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", index=True)
    token_sha256: str = Field(unique=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    created_by: str
    expires_at: datetime = Field(sa_type=UtcDateTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Node(SQLModel, table=True):
    """A hospital's node and its public keys."""

    __tablename__ = "node"

    id: str = Field(default_factory=new_id, primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", index=True)
    kit_id: str | None = Field(default=None, foreign_key="enrolment_kit.id", unique=True)
    """The kit it came with."""
    mode: NodeMode = Field(sa_type=stored(NodeMode))
    state: EnrolmentState = Field(default=EnrolmentState.PENDING, sa_type=stored(EnrolmentState))
    signing_key: str = Field(unique=True)
    envelope_key: str
    flower_key: str
    fingerprint: str
    software: str
    enrolled_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    decided_by: str | None = None
    last_seen_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    heartbeat: JsonDict | None = Field(default=None, sa_type=JSON)
    """The last `shared.contracts.enrolment.Heartbeat`."""
    flower_node_id: str | None = Field(default=None, index=True)
    lost_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Since when the SuperLink hears nothing of its SuperNode."""


class SeenProof(SQLModel, table=True):
    """A request proof that was used; a second use within its window is a replay."""

    __tablename__ = "seen_proof"

    jti: str = Field(primary_key=True)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
