"""The audit as pages and commands see it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class AuditView(BaseModel):
    """One entry."""

    id: int
    subject: str
    seq: int
    at: datetime
    actor: str
    actor_name: str
    action: str
    data: dict[str, Any]  # Any: each action has its own shape


class AuditVerification(BaseModel):
    """What `audit verify` found."""

    ok: bool
    subjects: int
    entries: int
    checkpoints: int
    problems: list[str]
