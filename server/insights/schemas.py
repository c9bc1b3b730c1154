"""The insights as a page sees them."""

from datetime import date, datetime

from pydantic import BaseModel

from shared.contracts.agreement import Agreement
from shared.contracts.analysis import ClassShare
from shared.contracts.ontology import CellClass


class AgreementRow(BaseModel):
    """How far two readings agree, of one reader, site or class."""

    name: str
    cases: int
    agreement: Agreement


class ClassRow(BaseModel):
    """How far two readings agree on one class: this class, or any other."""

    label: CellClass
    agreement: Agreement
    first_cells: int
    """Cells that the one reading gives this class."""
    second_cells: int
    """Cells that the other does."""


class Comparison(BaseModel):
    """Two readings of the same cells over many cases; empty lists where there was none."""

    overall: Agreement | None
    readers: list[AgreementRow]
    sites: list[AgreementRow]
    classes: list[ClassRow]


class Week(BaseModel):
    """A site's AI in one week; None where there is nothing to make a share of."""

    monday: date
    cases: int
    ood: float | None
    """Share of cells unlike what the model was trained on."""
    set_size: float | None
    """Mean number of classes in a prediction set."""
    signed: int
    corrected: float | None
    """Share of the model's cells that readers renamed, by the week of the signature."""


class Drift(BaseModel):
    """The AI of one site and stain over the weeks."""

    site: str
    stain: str
    weeks: list[Week]


class Unlike(BaseModel):
    """How much of what one site has sent of one stain lately looks unlike what the model was trained on."""

    hospital_id: str
    stain: str
    """Empty where the hospital does not name it."""
    cells: int
    share: ClassShare
    """Of the cells, with its exact interval, which takes cells for independent."""


class Pace(BaseModel):
    """What cases take of a reader; medians, None where there is no case."""

    cases: int
    seconds: float | None
    """Active, a case."""
    seconds_per_100: float | None
    """A hundred cells: with the AI, of the case; without, of those classified."""
    keys: float | None
    clicks: float | None


class TimeRow(BaseModel):
    """A reader's time with and without the AI."""

    name: str
    shown: Pace
    blind: Pace
    corrections: float | None
    """Corrected and added cells a case, mean."""


class TimeWeek(BaseModel):
    """Everybody's median pace in one week."""

    monday: date
    shown: float | None
    """Active seconds a hundred cells."""
    blind: float | None


class CaseTime(BaseModel):
    """What one signed case took; nothing of the patient."""

    case_id: str
    site: str
    reader: str
    signed_at: datetime
    cells: int
    seconds: float
    keys: int
    clicks: int
    corrected: int
    added: int
    blind: bool
    blind_seconds: float
    blind_keys: int
    blind_labelled: int


class Insights(BaseModel):
    """The whole page."""

    days: int
    signed: int
    received: int
    blind: int
    """Signed cases that were read without the AI first."""
    ai: Comparison
    """The AI against the signed report."""
    blind_final: Comparison
    """First impressions against the signed report."""
    blind_ai: Comparison
    """The AI against first impressions."""
    seconds: Comparison
    """First readers against second opinions; a row of `readers` is a pair."""
    drift: list[Drift]
    times: list[TimeRow]
    time_weeks: list[TimeWeek]
    recent: list[CaseTime]
    named: bool
    """Whether readers other than oneself have their names."""
