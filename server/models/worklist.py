"""How a person likes to see the worklist."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime
from server.models.base import new_id, utc_now


class SavedView(SQLModel, table=True):
    """Filters and order under a name; each person's own."""

    __tablename__ = "saved_view"
    __table_args__ = (UniqueConstraint("owner_id", "name", name="uq_saved_view_owner_name"),)

    id: str = Field(default_factory=new_id, primary_key=True)
    owner_id: str = Field(foreign_key="user_account.id", index=True)
    name: str
    wanted: JsonDict = Field(sa_type=JSON)
    """`WorklistFilter`."""
    is_default: bool = False
    """What the worklist opens with; one of a person's at the most."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
