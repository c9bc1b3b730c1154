"""A reader's work on a case."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from server.db.types import JSON, UtcDateTime, stored
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
    seen: list[str] = Field(default_factory=list, sa_type=JSON)
    """Class groups of the gallery that were on this reader's screen, as values of `CellClass`."""


class ChangeKind(StrEnum):
    """What a reader did."""

    CLASS = "class"
    ADDED = "added"
    SPLIT = "split"
    MERGED = "merged"
    UNDO = "undo"
    REDO = "redo"


class LabelChange(SQLModel, table=True):
    """What one act of a reader did to one cell; undo and redo are acts too, so nothing is ever lost."""

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
    """``<act>#<n>``: the rows of one act share what stands before the ``#``."""
    kind: ChangeKind = Field(default=ChangeKind.CLASS, sa_type=stored(ChangeKind))
    stood: bool = True
    """Whether the cell stood before."""
    stands: bool = True
    """Whether it stands after."""
    refers_to: str | None = None
    """The act that an undo takes back or a redo does again."""


class FlagDecision(SQLModel, table=True):
    """A reader agrees with or dismisses a flag."""

    __tablename__ = "flag_decision"

    case_id: str = Field(foreign_key="smear_case.id", primary_key=True)
    flag_id: str = Field(primary_key=True)
    agreed: bool
    reason: str = ""
    by: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
