"""What a training request may say, what a node answers, and what a hospital's policy allows.

These objects travel as one JSON string inside a Flower ``ConfigRecord`` (key ``request`` or ``reply``) and over the
local socket between relay and trainer. Tensors travel beside them. A request is hostile input to a node.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from shared.contracts.analysis import Contract, Fraction
from shared.contracts.ontology import CellClass

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]


class Augmentation(StrEnum):
    """How far training's looks at a cell go; see `client_node.training.augment`."""

    MILD = "mild"
    STRONG = "strong"


class Balance(StrEnum):
    """What is done about rare classes."""

    SAMPLER = "sampler"
    """Rare classes are drawn more often."""
    LOGIT = "logit"
    """Logits are adjusted by the classes' frequencies in the loss (Menon et al. 2021)."""
    FOCAL = "focal"
    """Drawn by frequency, and sure cells weigh less in the loss (Lin et al. 2017)."""
    NONE = "none"


class Recipe(Contract):
    """How a node trains: everything that is not the data."""

    backbone: Identifier = "tf_efficientnet_lite0"
    classes: tuple[CellClass, ...] = Field(min_length=2)
    """The ordered classes the head predicts."""
    frozen_stages: int | None = Field(default=None, ge=0, le=64)
    """Stages of the backbone that stay as pretrained, with the stem; 0 = everything learns, None = as the backbone's
    entry says."""
    local_epochs: int = Field(default=5, ge=1, le=50)
    batch_size: int = Field(default=32, ge=1, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=0.1)
    """Of the unfrozen stages."""
    head_learning_rate: float = Field(default=2e-3, gt=0, le=0.5)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=0.5)
    proximal_mu: float = Field(default=0.0, ge=0, le=10)
    input_size: int = Field(default=112, ge=32, le=512)
    views: int = Field(default=4, ge=1, le=32)
    """Augmented views cached per image in front of the unfrozen stages."""
    augmentation: Augmentation = Augmentation.MILD
    balance: Balance = Balance.SAMPLER
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay a step of the weights' moving average, which then is the result; 0 = the last weights are."""
    head_epochs: int = Field(default=0, ge=0, le=50)
    """So many of the local epochs of a run's first round only the head learns (staged unfreezing): later it knows."""
    patience: int = Field(default=0, ge=0, le=50)
    """Stop after so many local epochs without a better balanced loss on the site's validation groups, and return the
    best; 0 = train all epochs and return the last."""
    seed: int = 0


class TrainRequest(Contract):
    """One round's request to one node."""

    kind: Literal["train"] = "train"
    run_key: Identifier
    round: int = Field(ge=1, le=1000)
    rounds: int = Field(ge=1, le=1000)
    base_sha256: Sha256
    """Hash of the frozen base weights the tensors apply to."""
    recipe: Recipe
    participants: int = Field(ge=1)
    """How many hospitals were sampled: a policy may want a least number."""


class EvaluateRequest(Contract):
    """Ask a node to evaluate a candidate on its own held-out groups, beside the model it runs now."""

    kind: Literal["evaluate"] = "evaluate"
    run_key: Identifier
    base_sha256: Sha256
    recipe: Recipe
    participants: int = Field(ge=1)


class CensusRequest(Contract):
    """Ask a node what it could train on."""

    kind: Literal["census"] = "census"


class SiteMetrics(Contract):
    """Figures over one site's own images. Recall is absent for classes without support."""

    n: int
    loss: float
    accuracy: Fraction
    macro_f1: Fraction
    recall: dict[CellClass, Fraction] = Field(default_factory=dict)
    support: dict[CellClass, int] = Field(default_factory=dict)


class CalibrationSummary(Contract):
    """What a site's calibration looks like; the centre's defaults for unseen hospitals are medians of these."""

    temperature: float = Field(gt=0)
    conformal_quantile: Fraction
    """Sets hold the classes whose cumulative probability stays within this value; see `shared.vision.calibration`."""
    density: tuple[float, float, float] | None = None
    """Mean optical density per channel of the stained pixels of its cells; see `shared.vision.colour`."""


class TrainReply(Contract):
    """A node's answer to a round; the tensors stand beside it."""

    kind: Literal["train"] = "train"
    examples: int
    """Training cells used: the weight of the update."""
    train_loss: float
    received: SiteMetrics
    """The *received* global model on the site's validation groups, before training."""
    seconds: float
    manifest_sha256: Sha256
    """Hash of the round's training manifest, which stays on the node."""
    feedback_cells: int = 0
    """How many of the training cells carry a label that came home with a report."""
    boxes: int = Field(default=0, ge=0)
    """Cells marked in the fields by which the finder learnt; 0: it stayed as received, and does not count."""


class EvaluateReply(Contract):
    """A node's answer to a candidate."""

    kind: Literal["evaluate"] = "evaluate"
    candidate: SiteMetrics
    """On the held-out test groups."""
    current: SiteMetrics | None
    """The model the node runs now, on the same groups; None where it runs none."""
    calibration: CalibrationSummary
    seconds: float
    boxes: int = Field(default=0, ge=0)
    """Cells marked in the site's training fields: its part in the finder."""


class ClassCensus(Contract):
    """Counts of one class in one source."""

    source: str
    cls: CellClass = Field(alias="class")
    train: int
    val: int
    test: int


class Census(Contract):
    """What a node could train on; counts only."""

    rows: tuple[ClassCensus, ...]
    groups: int
    feedback: int = 0


class CensusReply(Contract):
    """A node's answer to a census request."""

    kind: Literal["census"] = "census"
    census: Census


class Refusal(Contract):
    """A node refuses, or failed: a code from the error catalogue and a sentence without inner detail."""

    kind: Literal["refusal"] = "refusal"
    code: str
    reason: str


Request = Annotated[TrainRequest | EvaluateRequest | CensusRequest, Field(discriminator="kind")]
Reply = Annotated[TrainReply | EvaluateReply | CensusReply | Refusal, Field(discriminator="kind")]


class TrainingManifest(Contract):
    """Which cells a round trained on, by hash; stays on the node (``H/training/manifests/<run_key>-r<round>.json``)."""

    run_key: Identifier
    round: int
    cells: tuple[Sha256, ...]
    """Sorted; a cell's hash is `client_node.datasets.catalogue.cell_hash`."""
    feedback_cells: tuple[Sha256, ...] = ()
