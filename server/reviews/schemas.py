"""What a reader does, and what comes back at once."""

from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, Field, JsonValue

from server.cases.schemas import CellView
from server.models import ChangeKind
from shared.contracts.analysis import Differential
from shared.contracts.findings import Part
from shared.contracts.ontology import CellClass
from shared.contracts.report import GlassReason


class Done(NamedTuple):
    """What an act has come to, for `server.reviews.steps.changed`."""

    cell_ids: list[str]
    """Of the cells that the page asked about."""
    case_version: int
    """After the act. Whatever comes later is not known to whoever asked."""


class ChangeResult(BaseModel):
    """After a reclassification or undo: what the page must redraw."""

    case_version: int
    cells: list[CellView]
    """The changed cells that stand."""
    gone: list[str] = []
    """Ids of the changed cells that do not stand (any more)."""
    differential: Differential
    changes: int
    """How many changes stand (not undone)."""


class ChangeView(BaseModel):
    """One change in the history."""

    cell_id: str
    number: int
    kind: ChangeKind
    stands: bool
    """Whether the cell stood after it."""
    previous: CellClass
    label: CellClass
    by: str
    at: datetime
    undone: bool


class NewBox(BaseModel):
    """A cell that a reader marks in a field; its id is the page's own, so that it can be named before it is saved."""

    cell_id: str = Field(pattern=r"^r[0-9a-f]{12}$")
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels of the field."""


class Readiness(BaseModel):
    """What stands between a reader and the signature; both empty: nothing."""

    doubtful: list[int]
    """Numbers of the doubtful cells that no reader has looked at."""
    unseen: list[CellClass]
    """Class groups that were not on the reader's screen."""


class FlagDecisionInput(BaseModel):
    """The reader's word on one flag."""

    flag_id: str
    shown: str
    """As the page had it (`FlagView.shown`)."""
    agreed: bool
    reason: str = ""


class SignInput(BaseModel):
    """Sign-out: two components, identifier (the session's own user name, typed or shown) and password."""

    password: str
    impression: str
    decisions: list[FlagDecisionInput] = []
    """One for every flag that stood on the page: a flag that fired meanwhile was seen by nobody."""
    case_version: int
    opinions: list[str] = []
    """Ids of the second opinions that stood on the page."""
    idempotency_key: str | None = None
    """The same content under the same key again makes no second report."""


class SetBy(BaseModel):
    """Who gave an entry the value that stands, and when."""

    name: str
    at: datetime


class FindingView(BaseModel):
    """One thing that was found, as it is said everywhere."""

    key: str
    part: Part
    name: str
    words: str
    abnormal: bool
    remark: str


class FindingsView(BaseModel):
    """The findings beside the differential."""

    case_version: int
    items: dict[str, JsonValue]
    """``grade.<term>``, ``schistocytes``, ``platelets``, ``malaria``, ``text.<part>`` → value."""
    set_by: dict[str, SetBy]
    statements: list[FindingView]
    can_undo: bool
    """This person has an entry that stands."""


class PhraseView(BaseModel):
    """A phrase to insert; without an id everybody has it."""

    id: str | None
    place: str
    text: str


class GlassInput(BaseModel):
    """Not gradable: the glass slide is asked for, under a signature."""

    password: str
    reason: GlassReason
    note: str = ""
    case_version: int
    opinions: list[str] = []
    """Ids of the second opinions that stood on the page."""
    idempotency_key: str | None = None
    """The same content under the same key again makes no second report."""
