"""Cases as a page or another domain sees them."""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Literal, NamedTuple

from pydantic import BaseModel, computed_field

from server.accounts.schemas import Colleague
from server.models import OpinionKind
from shared.contracts.analysis import ClassLimits, Differential, Flag, Quality
from shared.contracts.case import CaseState, ClinicalContext, Priority
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus
from shared.contracts.supplement import MoreState


class CellOutline(NamedTuple):
    """What of a cell its number, its group, the differential and its doubt depend on."""

    cell_id: str
    added_at: datetime | None
    stands: bool
    current_class: CellClass
    changed_by: str | None
    prediction_set: list[str]
    ood_score: float
    provisional: bool
    disputed: bool


class Sort(StrEnum):
    """What the worklist is sorted by; ties by urgency or case number."""

    URGENCY = "urgency"
    DUE = "due"
    WAITING = "waiting"
    HOSPITAL = "hospital"
    FLAGS = "flags"
    CELLS = "cells"
    DOUBTFUL = "doubtful"
    READER = "reader"
    CASE = "case"


class WorklistRow(BaseModel):
    """One line of the worklist."""

    case_id: str
    hospital_id: str
    hospital_name: str
    priority: Priority
    state: CaseState
    flags: list[Flag]
    cell_count: int
    doubtful_count: int
    received_at: datetime
    due_at: datetime
    claimed_by: str | None
    """Display name of the holder while the lease lasts."""
    claimed_by_id: str | None
    assigned_to: str | None
    """Display name of who is to read it."""
    assigned_to_id: str | None
    pseudo: bool
    synthetic: bool
    key: list[str | int]
    """Where it stands in the order: lists of one order compare as their lines do."""
    blind: bool = False
    """This person is to see it without the AI: `flags` is empty and `doubtful_count` 0, whatever it found."""
    second_opinion: str = ""
    """``you`` or ``anyone``: of whom a second opinion is asked that this person can give; ``asked``: that they wait
    for; else empty."""
    asked_by: str | None = None
    """Who asks for it."""
    amending: bool = False
    """A signed report of it is being amended; never told to whom a second opinion is asked of."""


class WorklistFilter(BaseModel):
    """What the worklist shows, and in which order; None and nothing mean all."""

    hospital_id: str | None = None
    flag: str | None = None
    priority: Priority | None = None
    reader: str = ""
    """``me``, ``nobody``, or a person's id."""
    state: Literal["open", "waiting", "reading", "done", "all"] = "open"
    """``open``: to read, of these ``waiting`` (nobody holds it) or ``reading``; ``done``: signed and later."""
    late: bool = False
    """Only what is past its turn-around target."""
    asked: bool = False
    """Only cases in which a question or an answer waits for this person."""
    search: str = ""
    sort: Sort = Sort.URGENCY
    descending: bool = False


class Worklist(BaseModel):
    """A page of the worklist, and counts of all."""

    rows: list[WorklistRow]
    more: bool
    """There are lines behind these."""
    matching: int
    """How many cases fit the filters."""
    to_read: int
    stat: int
    late: int
    mine: int
    """Assigned to this person, or held."""
    oldest_received_at: datetime | None
    hospitals: dict[str, str]
    """Id → name of all hospitals with cases, for the filter."""
    flags: list[str]


class SavedViewView(BaseModel):
    """Filters and order that a person keeps under a name."""

    id: str
    name: str
    wanted: WorklistFilter
    is_default: bool


class NotAssigned(BaseModel):
    """A case that could not be assigned, and why."""

    case_id: str
    reason: str


class Assigned(BaseModel):
    """What became of assigning many cases."""

    to: Colleague | None
    done: list[str] = []
    failed: list[NotAssigned] = []


class CellView(BaseModel):
    """A cell in the reading room."""

    cell_id: str
    number: int
    """1-based, stable within the case: what a person calls it."""
    field: int | None
    box: tuple[int, int, int, int]
    blob: str
    ai_class: CellClass
    ai_probability: float
    prediction_set: list[CellClass]
    ood_score: float
    edge: bool
    """The field's edge cuts it."""
    provisional: bool
    """The hospital has taught the class by a few examples; its probability is not calibrated."""
    current_class: CellClass
    changed_by: str | None
    changed_at: datetime | None
    doubtful: bool
    margin: float | None = None
    """By how much the model's class leads its second; None where the hospital's node did not say."""
    added_by: str | None = None
    """The reader who marked it in the field; None: the hospital's model found it."""


class BlindView(BaseModel):
    """A blind reading under way, as whoever is to do it sees it."""

    kind: OpinionKind
    hides_ai: bool
    mine: bool
    """Whether this person may classify and save now."""
    takeable: bool = False
    """Asked of anyone, and taken by nobody yet."""
    asked_by: str | None = None
    question: str = ""
    text: str = ""
    estimate: dict[CellClass, float] = {}
    labelled: int = 0
    """Cells classified so far."""


class FieldView(BaseModel):
    """A field image in the reading room."""

    index: int
    blob: str
    width: int
    height: int
    microns: float | None = None
    """Micrometres a pixel, where known."""


class Amending(BaseModel):
    """A signed report that is being amended."""

    status: ReportStatus
    """Of the version to come."""
    of_version: int
    reason: str
    before: CaseState
    """Where the case stood."""
    case_version: int
    """The case's version when it began: unchanged, nothing was done yet."""


class FlagView(Flag):
    """A flag in the reading room."""

    @computed_field(description="What a reader sees of it, as a hash: sent with the signature.")  # type: ignore[prop-decorator]
    @property
    def shown(self) -> str:
        """Further cells can give a flag another severity or evidence under the same id."""
        return sha256(f"{self.id}\n{self.severity}\n{self.evidence.text}".encode()).hexdigest()[:16]


class CaseView(BaseModel):
    """Everything the reading room shows."""

    case_id: str
    hospital_id: str
    hospital_name: str
    priority: Priority
    state: CaseState
    version: int
    context: ClinicalContext
    flags: list[FlagView]
    quality: Quality
    ai_differential: Differential
    differential: Differential
    """Live: of the current classes."""
    untrained_classes: list[CellClass]
    limits: ClassLimits = {}
    """Where the hospital's rules on a class's share fire; empty where its node does not tell."""
    model_version: str
    fields: list[FieldView]
    cells: list[CellView]
    """Grouped by current class in reporting order, inside a class by doubt (set size, then margin, then OOD)."""
    earlier_cases: list[str]
    claimed_by: str | None
    claimed_by_id: str | None
    lease_until: datetime | None
    received_at: datetime
    due_at: datetime
    pseudo: bool
    synthetic: bool
    report_id: str | None
    amending: Amending | None = None
    overlays: list[str] = []
    """Ids of the cells of which the hospital sent what the model saw in them."""
    blind: BlindView | None = None
    """Set while something is hidden: what the AI said then reads as if it had said nothing, and nothing that the first
    reader did shows."""


class MoreView(BaseModel):
    """A request for more cells of a smear."""

    request_id: str
    state: MoreState
    asked_at: datetime
    asked_by: str
    changed_at: datetime
    cells: int
    """White cells that came."""
    fields: int
    reason: str
    note: str
    """What a reader should know while nothing has come."""


class SignedCell(BaseModel):
    """A cell of a signed case, to lay beside another."""

    case_id: str
    cell_id: str
    number: int
    blob: str
    label: CellClass
    set_by: str | None
    """Who set or accepted its class; None: it stood as the model named it."""
    signed_on: str
    """The day, in words."""


class Comparison(BaseModel):
    """What is laid beside a cell."""

    earlier: list[SignedCell]
    """Of the same patient."""
    references: list[SignedCell]
    """Of hospitals that share their signed cells."""
