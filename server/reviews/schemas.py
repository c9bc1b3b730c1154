"""What a reader does, and what comes back at once."""

from datetime import datetime

from pydantic import BaseModel

from server.cases.schemas import CellView
from shared.contracts.analysis import Differential
from shared.contracts.ontology import CellClass


class ChangeResult(BaseModel):
    """After a reclassification or undo: what the page must redraw."""

    case_version: int
    cells: list[CellView]
    """The changed cells."""
    differential: Differential
    changes: int
    """How many changes stand (not undone)."""


class ChangeView(BaseModel):
    """One change in the history."""

    cell_id: str
    previous: CellClass
    label: CellClass
    by: str
    at: datetime
    undone: bool


class FlagDecisionInput(BaseModel):
    """The reader's word on one flag."""

    flag_id: str
    agreed: bool
    reason: str = ""


class SignInput(BaseModel):
    """Sign-out: two components, identifier (the session's own user name, typed or shown) and password."""

    password: str
    impression: str
    decisions: list[FlagDecisionInput] = []
    case_version: int
