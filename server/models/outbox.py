"""The transactional outbox."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime
from server.models.base import utc_now


class OutboxEntry(SQLModel, table=True):
    """Something that must happen because of a committed change; dispatched as a Celery task named `kind`."""

    __tablename__ = "outbox_entry"

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    """A task name, e.g. ``reports.render``."""
    payload: JsonDict = Field(default_factory=dict, sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    dispatched_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    done_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    not_before: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    """Back-off: no further attempt before this moment."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """A worker has it in hand and renews this; a lease that ran out means that the worker died."""
    lease_owner: str | None = None
    gave_up_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Set after the last of many unexpected errors; a person must look."""
    attempts: int = 0
    error: str | None = None
