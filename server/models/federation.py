"""Federated runs, as they happened."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.federation.states import RunState, SiteState
from server.models.base import new_id, utc_now


class Run(SQLModel, table=True):
    """One federated run."""

    __tablename__ = "federated_run"

    id: str = Field(default_factory=new_id, primary_key=True)
    """The run key on the wire."""
    state: RunState = Field(default=RunState.QUEUED, index=True, sa_type=stored(RunState))
    recipe: JsonDict = Field(sa_type=JSON)
    """`Recipe`."""
    strategy: str = "fedavg"
    strategy_parameters: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """The fields of the strategy's `Parameters`; see `server.federation.strategies.registry`."""
    privacy: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """`RunPrivacy`."""
    rounds: int
    min_sites: int
    round_deadline_seconds: int
    created_by: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    flower_run_id: str | None = None
    """Flower's run that carries it now."""
    past_flower_runs: list[str] = Field(default_factory=list, sa_type=JSON)
    """Flower's runs that carried it before it was resumed; none of them may again."""
    resumes: int = 0
    """How often it was resumed by itself since its last round ended."""
    plan: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """`RunPlan` as it was launched; empty for runs from before it was kept."""
    feedback: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Hospital id → labels that had come home with reports at its launch."""
    imported: JsonDict | None = Field(default=None, sa_type=JSON)
    """Hospital id → its other labelled cells then; None: of a run from before they were counted."""
    base_sha256: str | None = None
    model_version: str | None = None
    per_site: JsonDict | None = Field(default=None, sa_type=JSON)
    """Hospital id → `SiteMetrics` of the candidate on the site's held-out groups."""
    validated: JsonDict | None = Field(default=None, sa_type=JSON)
    """Hospital id → `SiteMetrics` of the candidate on the site's validation groups: what the last round came to."""
    parent: str | None = None
    """The model version whose tensors the run started from; None: the pretrained weights."""
    problem: str | None = None
    stop_requested: bool = False
    pause_requested: bool = False


class RoundRecord(SQLModel, table=True):
    """One round as a whole; written when it starts, completed when it ends."""

    __tablename__ = "round_record"

    run_id: str = Field(foreign_key="federated_run.id", primary_key=True)
    round: int = Field(primary_key=True)
    started_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    sampled: int
    replied: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float | None = None
    loss: float | None = None
    """Validation loss of the model the round *received*, weighted by the sites' validation cells."""
    accuracy: float | None = None
    whole: bool = False
    """Whether it left a model. One that ended without enough hospitals did not, and is no round done."""
    epsilon: float | None = None
    """What noise at the centre has spent of every hospital with this round; None: it added none."""


class SiteRound(SQLModel, table=True):
    """One hospital in one round."""

    __tablename__ = "site_round"

    run_id: str = Field(foreign_key="federated_run.id", primary_key=True)
    round: int = Field(primary_key=True)
    hospital_id: str = Field(foreign_key="hospital.id", primary_key=True)
    state: SiteState = Field(default=SiteState.SAMPLED, sa_type=stored(SiteState))
    reason: str | None = None
    examples: int | None = None
    feedback_cells: int | None = None
    train_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    n: int | None = None
    seconds: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    epsilon: float | None = None
    """What the hospital's part in the run has spent with this round; None: it trained without noise of its own."""


class RunEvent(SQLModel, table=True):
    """A line of a run's log book."""

    __tablename__ = "run_event"

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(foreign_key="federated_run.id", index=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    kind: str
    text: str


class DryRun(SQLModel, table=True):
    """A question to all hospitals: would you take part?"""

    __tablename__ = "dry_run"

    id: str = Field(default_factory=new_id, primary_key=True)
    plan: JsonDict = Field(sa_type=JSON)
    """`RunPlan`."""
    recipe: JsonDict = Field(sa_type=JSON)
    """`Recipe`."""
    created_by: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    base_sha256: str | None = None
    tensor_bytes: int = 0
    flower_run_id: str | None = None
    answers: JsonDict = Field(default_factory=dict, sa_type=JSON)
    """Hospital id → `SiteAnswer`; who is missing did not answer."""
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    problem: str | None = None


class RunSchedule(SQLModel, table=True):
    """A run that is launched again and again at its time of the week."""

    __tablename__ = "run_schedule"

    id: str = Field(default_factory=new_id, primary_key=True)
    plan: JsonDict = Field(sa_type=JSON)
    """`RunPlan`."""
    weekday: int | None = None
    """0: Monday … 6: Sunday; None: every day."""
    minute: int
    """Of the day, UTC."""
    least_labels: int = 0
    """Launches only if so many labels are new since the last run that was completed; see `server.federation.labels`."""
    created_by: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    considered_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    """Times up to this one have been launched or let go."""
    outcome: str = ""
    """What came of the last time, in a sentence."""
    run_id: str | None = None
    """The run that it launched last."""


class CensusRecord(SQLModel, table=True):
    """The latest census of a hospital."""

    __tablename__ = "census"

    hospital_id: str = Field(foreign_key="hospital.id", primary_key=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    census: JsonDict = Field(sa_type=JSON)
    """`Census`."""
