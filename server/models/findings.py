"""What readers enter beside the differential, and the phrases that they keep."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from server.db.types import JSON, UtcDateTime
from server.models.base import new_id, utc_now


class FindingChange(SQLModel, table=True):
    """One step: an item of the findings gets a value. What stands is each item's last step; nothing is ever lost."""

    __tablename__ = "finding_change"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    item: str
    """``grade.<term>``, ``schistocytes``, ``platelets``, ``malaria`` or ``text.<part>``."""
    value: Any = Field(default=None, sa_type=JSON, nullable=True)  # Any: JSON, as `shared.contracts.findings` has it
    previous: Any = Field(default=None, sa_type=JSON, nullable=True)  # Any: as above
    version: int
    """Of the case, after this step: the order of steps."""
    by: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    refers_to: str | None = None
    """The step that this one takes back."""
    undone: bool = False
    """Taken back, or a taking back itself."""
    idempotency_key: str = Field(unique=True)


class Phrase(SQLModel, table=True):
    """A piece of text that a reader keeps for reports."""

    __tablename__ = "phrase"

    id: str = Field(default_factory=new_id, primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    place: str
    """A part of the findings, or ``impression``."""
    text: str
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
