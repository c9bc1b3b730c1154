"""The audit: one hash chain per subject, with signed checkpoints over all heads."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime
from server.models.base import utc_now


class AuditEntry(SQLModel, table=True):
    """Who did what to which subject; never changed, never removed."""

    __tablename__ = "audit_entry"
    __table_args__ = (UniqueConstraint("subject", "seq"),)

    id: int | None = Field(default=None, primary_key=True)
    subject: str = Field(index=True)
    """``case:HV-…``, ``model:…``, ``user:…``, ``hospital:…``, ``run:…``."""
    seq: int
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    actor: str
    """``user:<id>``, ``node:<id>`` or ``system``."""
    action: str
    data: JsonDict = Field(default_factory=dict, sa_type=JSON)
    previous_hash: str
    hash: str


class AuditCheckpoint(SQLModel, table=True):
    """The heads that moved since the checkpoint before, signed by the centre: a cut-off tail shows."""

    __tablename__ = "audit_checkpoint"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    heads: JsonDict = Field(sa_type=JSON)
    """Subject → {seq, hash}."""
    previous_signature: str
    """Of the checkpoint before: they form a chain of their own."""
    signature: str
