"""The JSON that ``hematovision-demo --once`` writes: a contract that later checks read."""

from pydantic import BaseModel

from shared.contracts.ontology import CellClass


class HospitalResult(BaseModel):
    """What one hospital brought."""

    id: str
    site: str
    """The laboratory its images are from."""
    train_images: int
    """Labelled training cells in its catalogue."""
    smears: int


class RoundResult(BaseModel):
    """One round of the run; bytes over all hospitals."""

    round: int
    sampled: int
    replied: int
    bytes_up: int
    bytes_down: int
    seconds: float
    loss: float
    accuracy: float


class SiteResult(BaseModel):
    """The candidate on one hospital's held-out test groups."""

    accuracy: float
    macro_f1: float
    n: int


class ModelResult(BaseModel):
    """The promoted model."""

    version: str
    sha256: str
    signature: str


class FederationResult(BaseModel):
    """The first run."""

    run_id: str
    status: str
    rounds: list[RoundResult]
    per_site: dict[str, SiteResult]
    model: ModelResult


class CaseCounts(BaseModel):
    """How many smears got how far."""

    analysed: int
    flagged: int
    uploaded: int
    received: int
    signed: int
    delivered: int
    acknowledged: int
    feedback_labels: int


class FlagCheck(BaseModel):
    """A morphological flag held against what is really on the smear."""

    smear: str
    flag: str
    truth_count: int
    truth_total: int
    supported: bool


class ReportResult(BaseModel):
    """The hospital's copy of one report, with the identity put in."""

    path: str
    pages: int
    sha256: str


class FeedbackResult(BaseModel):
    """The corrected cell and the round that trained on it."""

    hospital: str
    cell_hash: str
    label: CellClass
    run_id: str
    manifest: str


class DemoResult(BaseModel):
    """The whole of it."""

    hospitals: list[HospitalResult]
    federation: FederationResult
    cases: CaseCounts
    flags_checked: list[FlagCheck]
    report: ReportResult
    feedback: FeedbackResult
    seconds: dict[str, float]
    peak_rss_mb: float
    """Sum of resident memory over the whole process tree: shared pages count more than once."""
    synthetic: bool
