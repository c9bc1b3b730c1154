"""Models as pages and commands see them."""

from datetime import datetime

from pydantic import BaseModel

from server.registry.states import ModelState
from shared.contracts.model_card import ModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.training import OwnPart, SiteMetrics


class GateFinding(BaseModel):
    """One reason why the gate blocks, or one thing to look at."""

    hospital_id: str
    """Empty: all hospitals together."""
    text: str
    kind: str = ""
    """``accuracy``, ``recall``, ``cells`` (none to evaluate on), ``unheard`` (trained and did not evaluate).

    Empty for models from before it was told.
    """
    cls: CellClass | None = None
    before: float | None = None
    """Of the model that the hospital ran then."""
    after: float | None = None
    n: int | None = None
    allowed: float | None = None
    """What may be lost there."""


class GateResult(BaseModel):
    """Whether a candidate may be promoted."""

    passed: bool
    findings: list[GateFinding] = []
    notes: list[GateFinding] = []
    """Falls of classes that a hospital has too few cells of to block by."""


class MatrixRow(BaseModel):
    """One hospital's line of the cross-site matrix."""

    hospital_id: str
    hospital_name: str
    candidate: SiteMetrics
    own: SiteMetrics | None
    """The candidate as the hospital would run it."""
    own_parts: list[OwnPart]
    current: SiteMetrics | None


class NodeModelView(BaseModel):
    """What a node did with a version."""

    hospital_id: str
    hospital_name: str
    version: str
    decision: str
    reason: str
    accuracy: float | None
    n: int | None
    at: datetime


class ModelView(BaseModel):
    """A model version."""

    version: str
    state: ModelState
    sha256: str
    signature: str
    key_id: str
    card: ModelCard
    gate: GateResult
    matrix: list[MatrixRow]
    nodes: list[NodeModelView]
    created_at: datetime
    promoted_at: datetime | None
    promoted_by: str | None
    override_reason: str | None
