"""Readings that are blind to something: a first impression without the AI, a second opinion without the first."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.models.base import new_id, utc_now
from server.models.reviews import ChangeKind
from shared.contracts.ontology import CellClass


class OpinionKind(StrEnum):
    """What a reading is blind to."""

    FIRST = "first"
    """A first impression: blind to the AI."""
    SECOND = "second"
    """A second opinion: blind to the first reader, and to the AI where whoever asked wanted that."""


class Opinion(SQLModel, table=True):
    """One reader's blind reading of one case; once saved it never changes."""

    __tablename__ = "opinion"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    kind: OpinionKind = Field(sa_type=stored(OpinionKind))
    reader_id: str | None = Field(default=None, foreign_key="user_account.id", index=True)
    """None: asked of anyone, and taken by nobody yet."""
    hides_ai: bool
    asked_by: str | None = Field(default=None, foreign_key="user_account.id", index=True)
    question: str = ""
    asked_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    saved_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    withdrawn_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    text: str = ""
    estimate: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Class → percent by eye."""
    labels: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Cell id → class, as saved; until then the rows of `OpinionLabel` tell."""
    compared_with: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Cell id → class of the other side at that moment: of the AI, or of the first reader."""


class OpinionLabel(SQLModel, table=True):
    """What one act of a blind reading did to one cell; only ever added to."""

    __tablename__ = "opinion_label"

    id: str = Field(default_factory=new_id, primary_key=True)
    opinion_id: str = Field(foreign_key="opinion.id", index=True)
    seq: int
    """The act's place in its reading, from 1."""
    cell_id: str
    previous: CellClass | None = Field(default=None, sa_type=stored(CellClass))
    label: CellClass | None = Field(default=None, sa_type=stored(CellClass))
    """None: not classified (any more)."""
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    kind: ChangeKind = Field(default=ChangeKind.CLASS, sa_type=stored(ChangeKind))
    refers_to: int | None = None
    """The act that an undo takes back or a redo does again."""
    idempotency_key: str = Field(unique=True)
    """``<act>#<n>``: the rows of one act share what stands before the ``#``."""


class ReadingActivity(SQLModel, table=True):
    """That somebody was at work on a case: how often keys and pointer were used since the last such word, no more."""

    __tablename__ = "reading_activity"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    reader_id: str = Field(foreign_key="user_account.id")
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    keys: int = 0
    clicks: int = 0


class CaseMeasure(SQLModel, table=True):
    """Figures of a case for the insights page, which then need not read every cell; none of them is a patient's."""

    __tablename__ = "case_measure"

    case_id: str = Field(foreign_key="smear_case.id", primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", index=True)
    stain: str = ""
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)
    cells: int
    ood_cells: int
    """Beyond the site's threshold."""
    set_sizes: int
    """Sum of the sizes of the prediction sets."""
    signed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    reader_id: str | None = Field(default=None, foreign_key="user_account.id")
    corrected: int = 0
    """Cells that the signed report names otherwise than the model did."""
    added: int = 0
    """Cells that readers marked."""
    pairs: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """``<AI's class>|<final class>`` → cells; a finer final class counts as the AI's own."""
    blind_final: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """``<first impression>|<final class>`` → cells, alike."""
    blind_ai: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """``<AI's class>|<first impression>`` → cells, alike."""
    blind: bool = False
    """Read blind first."""
    seconds: float = 0.0
    """Active, with the AI shown."""
    keys: int = 0
    clicks: int = 0
    blind_seconds: float = 0.0
    """Active, before the first impression was saved."""
    blind_keys: int = 0
    blind_clicks: int = 0
    blind_labelled: int = 0
    """Cells classified in the first impression."""
