"""Cases as a page or another domain sees them."""

from datetime import datetime

from pydantic import BaseModel

from server.models import OpinionKind
from shared.contracts.analysis import Differential, Flag, Quality
from shared.contracts.case import CaseState, ClinicalContext, Priority
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus


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
    pseudo: bool
    synthetic: bool
    blind: bool = False
    """To be read without the AI first: `flags` is empty and `doubtful_count` 0, whatever it found."""
    second_opinion: str = ""
    """``you`` or ``anyone``: of whom a second opinion is asked that this person can give; ``asked``: that they wait
    for; else empty."""
    asked_by: str | None = None
    """Who asks for it."""


class WorklistFilter(BaseModel):
    """What the worklist shows; None means all."""

    hospital_id: str | None = None
    flag: str | None = None
    mine: bool = False
    state: str = "open"
    """``open`` (to read), ``done`` (signed and later) or ``all``."""
    search: str = ""


class Worklist(BaseModel):
    """The worklist: STAT first, then by due time."""

    rows: list[WorklistRow]
    to_read: int
    stat: int
    oldest_received_at: datetime | None
    hospitals: dict[str, str]
    """Id → name of all hospitals with cases, for the filter."""
    flags: list[str]


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


class CaseView(BaseModel):
    """Everything the reading room shows."""

    case_id: str
    hospital_id: str
    hospital_name: str
    priority: Priority
    state: CaseState
    version: int
    context: ClinicalContext
    flags: list[Flag]
    quality: Quality
    ai_differential: Differential
    differential: Differential
    """Live: of the current classes."""
    untrained_classes: list[CellClass]
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
