"""Model versions and what sites made of them."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.models.base import utc_now
from server.registry.states import ModelState


class ModelVersion(SQLModel, table=True):
    """A registered, signed model."""

    __tablename__ = "model_version"

    version: str = Field(primary_key=True)
    state: ModelState = Field(default=ModelState.CANDIDATE, index=True, sa_type=stored(ModelState))
    run_id: str = Field(foreign_key="federated_run.id")
    card: JsonDict = Field(sa_type=JSON)
    """`ModelCard`."""
    sha256: str
    """Of the canonical card bytes: one hash that pins card and artefacts."""
    signature: str
    key_id: str
    parent: str | None = None
    gate: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """`server.registry.schemas.GateResult`."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    promoted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    promoted_by: str | None = None
    override_reason: str | None = None


class ModelSite(SQLModel, table=True):
    """One cell of the cross-site matrix: a version at a hospital, beside what ran there then."""

    __tablename__ = "model_site"

    version: str = Field(foreign_key="model_version.version", primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", primary_key=True)
    candidate: JsonDict = Field(sa_type=JSON)
    """`SiteMetrics`."""
    own: JsonDict | None = Field(default=None, sa_type=JSON)
    """`SiteMetrics` of the candidate as the hospital would run it; None: its software does not tell."""
    own_parts: list[str] = Field(default_factory=list, sa_type=JSON)
    """`OwnPart`s: what of that is the hospital's own."""
    current: JsonDict | None = Field(default=None, sa_type=JSON)
    """`SiteMetrics` of the model the node ran, on the same groups."""


class NodeModel(SQLModel, table=True):
    """What a node did with a version; one row a decision."""

    __tablename__ = "node_model"

    id: int | None = Field(default=None, primary_key=True)
    node_id: str = Field(foreign_key="node.id", index=True)
    version: str = Field(foreign_key="model_version.version")
    decision: str
    reason: str
    accuracy: float | None = None
    n: int | None = None
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
