"""A reader's work on a case."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import UtcDateTime, stored
from server.models.base import new_id, utc_now
from shared.contracts.ontology import CellClass


class Review(SQLModel, table=True):
    """One reader's reading of one case."""

    __tablename__ = "review"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    reader_id: str = Field(foreign_key="user_account.id", index=True)
    started_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    signed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    impression: str = ""


class LabelChange(SQLModel, table=True):
    """One change of one cell's class; undo is a change too, so nothing is ever lost."""

    __tablename__ = "label_change"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    cell_id: str
    previous: CellClass = Field(sa_type=stored(CellClass))
    label: CellClass = Field(sa_type=stored(CellClass))
    by: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    undone: bool = False
    """Taken back by a later undo."""
    idempotency_key: str = Field(unique=True)


class FlagDecision(SQLModel, table=True):
    """A reader agrees with or dismisses a flag."""

    __tablename__ = "flag_decision"

    case_id: str = Field(foreign_key="smear_case.id", primary_key=True)
    flag_id: str = Field(primary_key=True)
    agreed: bool
    reason: str = ""
    by: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
