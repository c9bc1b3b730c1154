"""Cases as ingested; the pseudonymised working copy that a reader works on."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.models.base import new_id, utc_now
from shared.contracts.case import CaseState, Priority
from shared.contracts.ontology import CellClass
from shared.contracts.supplement import MoreState


class Case(SQLModel, table=True):
    """One flagged smear."""

    __tablename__ = "smear_case"

    id: str = Field(primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", index=True)
    node_id: str = Field(foreign_key="node.id")
    priority: Priority = Field(index=True, sa_type=stored(Priority))
    state: CaseState = Field(index=True, sa_type=stored(CaseState))
    model_version: str
    patient_pseudonym: str = Field(index=True)
    context: JsonDict = Field(sa_type=JSON)
    """`ClinicalContext`."""
    flags: list[JsonDict] = Field(sa_type=JSON)
    """`Flag` objects."""
    quality: JsonDict = Field(sa_type=JSON)
    """`Quality`."""
    differential: JsonDict = Field(sa_type=JSON)
    """The AI's `Differential`."""
    untrained_classes: list[str] = Field(default_factory=list, sa_type=JSON)
    limits: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """`ClassLimits` of the hospital's rules; empty where its node does not tell."""
    smear_id: str
    cell_count: int
    doubtful_count: int
    pseudo: bool = False
    synthetic: bool = False
    manifest: JsonDict = Field(sa_type=JSON)
    """`SignedManifest` as received."""
    supplements: list[JsonDict] = Field(default_factory=list, sa_type=JSON)
    """`SignedSupplement` objects of what the node sent later."""
    received_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)
    due_at: datetime = Field(sa_type=UtcDateTime, index=True)
    claimed_by: str | None = Field(default=None, foreign_key="user_account.id", index=True)
    claimed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    assigned_to: str | None = Field(default=None, foreign_key="user_account.id", index=True)
    """Who is to read it; whoever holds the claim is reading it."""
    assigned_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    flag_ids: str = " "
    """The ids of its flags, each between spaces: what the worklist filters and searches by."""
    flag_rank: int = 3
    """How severe its worst flag is: 0 critical, 1 urgent, 2 routine, 3 none."""
    signed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    closed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    version: int = 1
    """Raised by every change: the optimistic lock."""
    amending: JsonDict | None = Field(default=None, sa_type=JSON, nullable=True)
    """`server.cases.schemas.Amending`, while a signed report is being amended."""
    blind_drawn: bool = False
    """Drawn, as it came in, for a first read without the AI; never changed."""
    blind_read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the first impression of a drawn case was saved: from then on the AI is shown."""

    @property
    def awaits_impression(self) -> bool:
        """Whether what the AI said is hidden from everybody."""
        return self.blind_drawn and self.blind_read_at is None


class CaseField(SQLModel, table=True):
    """A field image of a case."""

    __tablename__ = "case_field"

    case_id: str = Field(foreign_key="smear_case.id", primary_key=True)
    index: int = Field(primary_key=True)
    blob: str
    width: int
    height: int
    microns: float | None = None
    """Micrometres a pixel, where the hospital's images say so."""


class CaseCell(SQLModel, table=True):
    """A cell of a case: what the model said and what stands now."""

    __tablename__ = "case_cell"

    case_id: str = Field(foreign_key="smear_case.id", primary_key=True)
    cell_id: str = Field(primary_key=True)
    field: int | None = None
    x0: int
    y0: int
    x1: int
    y1: int
    blob: str
    ai_class: CellClass = Field(sa_type=stored(CellClass))
    ai_probability: float
    ai_margin: float | None = None
    """By how much it leads the second class; None where the node did not say."""
    prediction_set: list[str] = Field(sa_type=JSON)
    ood_score: float
    edge: bool = False
    provisional: bool = False
    current_class: CellClass = Field(sa_type=stored(CellClass))
    changed_by: str | None = Field(default=None, foreign_key="user_account.id")
    changed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    stands: bool = True
    """False where a reader has split or merged it, or taken back its addition: kept, counted nowhere."""
    added_by: str | None = Field(default=None, foreign_key="user_account.id")
    """The reader who marked it in the field; None: the hospital's model found it."""
    added_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it joined the case, marked by a reader or as more that the hospital sent; None: it came with the case."""
    parents: list[str] = Field(default_factory=list, sa_type=JSON)
    """Ids of the cells it was split or merged from."""
    disputed: bool = False
    """The first impression named it otherwise than the model: it wants a second look like any doubtful cell."""


class CaseSupplement(SQLModel, table=True):
    """A reader's request for more of a smear, and what became of it."""

    __tablename__ = "case_supplement"

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    hospital_id: str = Field(foreign_key="hospital.id")
    node_id: str = Field(foreign_key="node.id", index=True)
    cells: int
    """White cells that are wanted."""
    asked_by: str = Field(foreign_key="user_account.id")
    asked_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    state: MoreState = Field(default=MoreState.ASKED, sa_type=stored(MoreState))
    changed_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    reason: str = ""
    fields_came: int = 0
    cells_came: int = 0
    """White cells."""


class Quarantine(SQLModel, table=True):
    """A case that could not be taken in, and why; kept until somebody looks."""

    __tablename__ = "quarantine"

    id: str = Field(default_factory=new_id, primary_key=True)
    hospital_id: str = Field(index=True)
    case_id: str = Field(index=True)
    code: str
    reason: str
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
