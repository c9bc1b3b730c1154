"""Questions to colleagues about a case."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from server.db.types import UtcDateTime, stored
from server.models.base import new_id, utc_now


class ConsultThread(SQLModel, table=True):
    """A question on a cell, on a region of a field, or on the whole case."""

    __tablename__ = "consult_thread"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    opened_by: str = Field(foreign_key="user_account.id")
    opened_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    cell_id: str | None = None
    field: int | None = None
    x0: int | None = None
    y0: int | None = None
    x1: int | None = None
    y1: int | None = None
    resolved_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    resolved_by: str | None = Field(default=None, foreign_key="user_account.id")
    last_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)
    last_by: str = Field(foreign_key="user_account.id")


class MessageKind(StrEnum):
    """What was done in a thread."""

    SAID = "said"
    RESOLVED = "resolved"
    REOPENED = "reopened"


class ConsultMessage(SQLModel, table=True):
    """One contribution; never changed or removed."""

    __tablename__ = "consult_message"

    id: str = Field(default_factory=new_id, primary_key=True)
    thread_id: str = Field(foreign_key="consult_thread.id", index=True)
    author: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    kind: MessageKind = Field(default=MessageKind.SAID, sa_type=stored(MessageKind))
    text: str = ""
    idempotency_key: str = Field(unique=True)


class ConsultPerson(SQLModel, table=True):
    """Who takes part in a thread: asked, mentioned, or has written in it."""

    __tablename__ = "consult_person"

    thread_id: str = Field(foreign_key="consult_thread.id", primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", primary_key=True, index=True)
    read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When this person last had the thread on screen."""
    noticed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When a letter last told this person; no second one goes before it was read."""
