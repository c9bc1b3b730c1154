"""The audit as pages and commands see it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class AuditQuery(BaseModel):
    """What is looked for; what is empty does not limit."""

    text: str = ""
    """Words in subject, action, name or details."""
    actor: str = ""
    """Part of a name, a user name, or of ``user:…``, ``node:…``, ``system…``."""
    action: str = ""
    """``case.signed``."""
    subject: str = ""
    """``case:HV-…``, whole."""
    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is too late."""
    before: int | None = None
    """Entries older than this one: the next page."""


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


class AuditPage(BaseModel):
    """A page of entries, newest first."""

    entries: list[AuditView]
    older: int | None
    """What to ask for as `before` to get the next page; None: this is the last."""


class AuditVerification(BaseModel):
    """What `audit verify` found."""

    ok: bool
    subjects: int
    entries: int
    checkpoints: int
    problems: list[str]
