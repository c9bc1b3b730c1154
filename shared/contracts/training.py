"""What a training request may say, what a node answers, and what a hospital's policy allows.

These objects travel as one JSON string inside a Flower ``ConfigRecord`` (key ``request`` or ``reply``) and over the
local socket between relay and trainer. Tensors travel beside them. A request is hostile input to a node.
"""

import math
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.contracts.analysis import Contract, Fraction
from shared.contracts.laboratory import Dye, KnownLaboratory
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import Privacy, PrivacySpent

Count = Annotated[int, Field(ge=0, le=10_000_000)]
"""How many cells, fields or groups; bounded, since figures from outside go into databases and sums."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Nonce = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]
"""Fresh for every exchange, so that no earlier answer fits a later request; see `shared.seal`."""
Reason = Annotated[str, Field(max_length=500)]
"""A public sentence; bounded, since it leaves the hospital."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]

LEAST_MARKED: Final = 20
"""Marked cells without which a site cannot tell whether a finder does well."""
MOST_MISSED: Final = 0.05
"""Share of a site's marked cells that a finder may miss beyond those that plain proposals miss."""
LEAST_LOSS: Final = 0.02
"""Loss of F1 against plain proposals from which a finder does worse."""


class Augmentation(StrEnum):
    """How far training's looks at a cell go; see `client_node.training.augment`."""

    SUBTLE = "subtle"
    """For a laboratory of its own, whose classes differ by tints."""
    MILD = "mild"
    STRONG = "strong"


class TensorForm(StrEnum):
    """How the tensors of a round travel, both ways; see docs/adr/0011."""

    HALF = "fp16"
    """safetensors."""
    PACKED = "packed"
    """Differences from what the other side has; see `shared.packing`."""


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
    classes: tuple[CellClass, ...] = Field(min_length=2, max_length=64)
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
    """Stop after so many local epochs without a better balanced loss on training groups that are held out for it, and
    return the best; 0 = train all epochs and return the last."""
    last_rate: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda value: value == 1.0)
    """Share of the learning rates that is left in a run's last round; they fall to it from round to round, along a
    cosine. At 1 hospitals with unlike cells pull apart as far in the last round as in the first (Li et al. 2020)."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    local_normalisation: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether each site keeps the scale and shift of the tail's channels as its own and trains with them (FedBN; Li et
    al. 2021); an unseen hospital gets their average. Left out where off: older cards were signed without."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[CellClass, ...]) -> tuple[CellClass, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each class once")
        return value

    def in_round(self, number: int, rounds: int) -> "Recipe":
        """Return what a hospital does in round ``number``, counted from 1, of ``rounds``."""
        done = (number - 1) / (rounds - 1) if rounds > 1 else 0.0
        rate = self.last_rate + (1.0 - self.last_rate) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        return self.model_copy(
            update={
                "head_epochs": self.head_epochs if number == 1 else 0,
                "learning_rate": self.learning_rate * rate,
                "head_learning_rate": self.head_learning_rate * rate,
            }
        )


class SealedShare(Contract):
    """Shares of one hospital's secrets for one other hospital; the centre carries them and cannot open them."""

    node: Annotated[int, Field(ge=0, lt=2**64)]
    """Whom it is for, or (on arrival) whose it is: Flower's id."""
    sealed: str = Field(max_length=2048, pattern=r"^[A-Za-z0-9_=-]+$")


class Masking(Contract):
    """That an update leaves masked only, and what a node's peers have sealed for it; see `shared.contracts.masking`."""

    exchange: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    shares: tuple[SealedShare, ...] = Field(max_length=31)


class TrainRequest(Contract):
    """One round's request to one node."""

    kind: Literal["train"] = "train"
    run_key: Identifier
    round: int = Field(ge=1, le=1000)
    rounds: int = Field(ge=1, le=1000)
    base_sha256: Sha256
    """Hash of the frozen base weights the tensors apply to."""
    recipe: Recipe
    participants: int = Field(ge=1, le=100_000)
    """How many hospitals were sampled: a policy may want a least number."""
    privacy: Privacy | None = None
    """What the training promises about privacy: a policy may want a least. None: nothing."""
    masking: Masking | None = Field(default=None, exclude_if=lambda value: value is None)
    """Left out without secure aggregation: nodes of an earlier version do not know it."""
    form: TensorForm = Field(default=TensorForm.HALF, exclude_if=lambda value: value is TensorForm.HALF)
    """Of the tensors beside it, and of those that are answered. Left out as fp16: nodes whose heartbeat speaks less
    than protocol 3 do not know it."""
    nonce: Nonce = ""

    @model_validator(mode="after")
    def _masked_as_fp16(self) -> Self:
        if self.masking is not None and self.form is not TensorForm.HALF:
            raise ValueError("a masked update has a form of its own, and starts from fp16")
        return self


class EvaluateRequest(Contract):
    """Ask a node to evaluate a candidate on its own held-out groups, beside the model it runs now."""

    kind: Literal["evaluate"] = "evaluate"
    run_key: Identifier
    base_sha256: Sha256
    recipe: Recipe
    participants: int = Field(ge=1, le=100_000)
    privacy: Privacy | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the candidate's training promised: an answer then tells nothing of the cells that it learnt from. Left out
    where it promised nothing: nodes of an earlier version do not know it."""
    nonce: Nonce = ""


class CensusRequest(Contract):
    """Ask a node what it could train on."""

    kind: Literal["census"] = "census"
    nonce: Nonce = ""


class DryRunRequest(Contract):
    """Ask a node whether it would train, were this its first round; nothing is trained and no tensors are sent."""

    kind: Literal["dry-run"] = "dry-run"
    rounds: int = Field(ge=1, le=1000)
    base_sha256: Sha256
    recipe: Recipe
    participants: int = Field(ge=1, le=100_000)
    privacy: Privacy | None = None
    masked: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether updates would leave under secure aggregation only."""
    tensor_bytes: int = Field(default=0, ge=0, le=2**40)
    """Bytes of tensors that a round would carry, each way."""
    nonce: Nonce = ""


class SiteMetrics(Contract):
    """Figures over one site's own images. Recall is absent for classes without support."""

    n: Count
    loss: Finite
    accuracy: Fraction
    macro_f1: Fraction
    recall: dict[CellClass, Fraction] = Field(default_factory=dict)
    support: dict[CellClass, Count] = Field(default_factory=dict)


class CalibrationSummary(Contract):
    """What a site's calibration looks like; the centre's defaults for unseen hospitals are medians of these."""

    temperature: float = Field(gt=0, le=1e4, allow_inf_nan=False)
    conformal_quantile: Fraction
    """Sets hold the classes whose cumulative probability stays within this value; see `shared.vision.calibration`."""
    quantiles: tuple[tuple[Fraction, Fraction], ...] = Field(default=(), max_length=16)
    """The same for other shares of cells than 0.95: (share, quantile), as far as the site's cells vouch for it."""
    density: tuple[Finite, Finite, Finite] | None = None
    """Mean optical density per channel of the stained pixels of its cells; see `shared.vision.colour`."""
    dye: Dye | None = None
    """More of these pixels, by which another laboratory can bring its own dye near."""


class TrainReply(Contract):
    """A node's answer to a round; the tensors stand beside it."""

    kind: Literal["train"] = "train"
    examples: Count
    """Training cells used: the weight of the update. To the nearest ten where training was private."""
    train_loss: Finite | None
    """None where training was private: it would tell of the training cells without noise."""
    received: SiteMetrics
    """The *received* global model on the site's validation groups, before training."""
    seconds: Seconds
    manifest_sha256: Sha256
    """Hash of the round's training manifest, which stays on the node."""
    feedback_cells: Count = 0
    """How many of the training cells carry a label that came home with a report."""
    boxes: Count = 0
    """Cells marked in the fields by which the finder learnt; 0: it stayed as received, and does not count."""
    privacy: PrivacySpent | None = None
    """None where training was not private."""


class OwnPart(StrEnum):
    """What of a model a site has of its own; see docs/personalisation.md."""

    VIEW = "view"
    """How its cells are shown to the network."""
    NORMALISATION = "normalisation"
    """The scale and shift of the network's channels."""
    HEAD = "head"
    """A correction of the shared head."""


class FinderMetrics(Contract):
    """A model's finder beside plain proposals, on marked fields of a site that taught neither."""

    fields: Count
    cells: Count
    """Marked in them."""
    found: Count
    """Of these, by the finder."""
    extra: Count
    """What it took for a cell and is none."""
    plain_found: Count
    plain_extra: Count
    """The same of plain proposals."""

    @model_validator(mode="after")
    def _no_more_than_marked(self) -> Self:
        if max(self.found, self.plain_found) > self.cells:
            raise ValueError("more cells found than marked")
        return self

    @property
    def judges(self) -> bool:
        """Whether the fields show enough cells to tell."""
        return self.cells >= LEAST_MARKED

    @property
    def worse(self) -> bool:
        """Whether the site does better without the finder: it misses clearly more, or does clearly worse in all."""
        if not self.judges:
            return False
        missed = (self.plain_found - self.found) / self.cells
        lost = self._f1(self.plain_found, self.plain_extra) - self._f1(self.found, self.extra)
        return missed > MOST_MISSED or lost > LEAST_LOSS

    def _f1(self, found: int, extra: int) -> float:
        return 2.0 * found / (found + extra + self.cells) if found else 0.0


class EvaluateReply(Contract):
    """A node's answer to a candidate."""

    kind: Literal["evaluate"] = "evaluate"
    candidate: SiteMetrics
    """On the held-out test groups: what every hospital gets, with nothing of the site's own but the view."""
    own: SiteMetrics | None = None
    """The candidate as this hospital would run it, on the same groups: with what is better on its validation groups
    of the shared and its own. None: the node's software does not tell."""
    own_parts: tuple[OwnPart, ...] = Field(default=(), max_length=len(OwnPart))
    """What of that is its own."""
    current: SiteMetrics | None
    """The model the node runs now, as it runs it, on the same groups; None where it runs none."""
    validation: SiteMetrics | None = None
    """The candidate on the validation groups, as `TrainReply.received` is of what a round began with: what the last
    round came to. None: the node's software does not tell."""
    calibration: CalibrationSummary
    laboratory: KnownLaboratory | None = None
    """What the site's cells look like to the candidate; None where it has too few, or keeps that to itself."""
    seconds: Seconds
    boxes: Count = 0
    """Cells marked in the site's training fields: its part in the finder."""
    finder: FinderMetrics | None = None
    """On the site's marked validation fields; None where it has none that are marked completely."""

    @property
    def as_run(self) -> SiteMetrics:
        """How the candidate would do at this hospital, to be held against `current`."""
        return self.own if self.own is not None else self.candidate


class ClassCensus(Contract):
    """Counts of one class in one source."""

    source: str = Field(max_length=200)
    cls: CellClass = Field(alias="class")
    train: Count
    val: Count
    test: Count


class Census(Contract):
    """What a node could train on; counts only."""

    rows: tuple[ClassCensus, ...] = Field(max_length=10_000)
    groups: Count
    feedback: Count = 0
    unmapped: Count = Field(default=0, exclude_if=lambda value: not value)
    """Cells that the last import of each data set left out, as nobody knows their label."""


class CensusReply(Contract):
    """A node's answer to a census request."""

    kind: Literal["census"] = "census"
    census: Census


class DryRunReply(Contract):
    """Whether a node would train now, were it asked to."""

    kind: Literal["dry-run"] = "dry-run"
    takes_part: bool
    reason: Reason = ""
    """Why not; empty where it would."""
    examples: Count | None = None
    """Cells it would train on; None where the hospital's policy does not let counts leave."""


class Refusal(Contract):
    """A node refuses, or failed: a code from the error catalogue and a sentence without inner detail."""

    kind: Literal["refusal"] = "refusal"
    code: str = Field(max_length=40)
    reason: Reason


class ReplySeal(Contract):
    """The node's signature over an answer; travels beside it, see `shared.seal`."""

    request_sha256: Sha256
    """Of the request and its tensors, as the node received them."""
    reply_sha256: Sha256
    """Of the answer's text."""
    tensors_sha256: Sha256
    """Of the answer's tensors; of nothing where there are none."""
    signature: str = Field(max_length=128)
    """By the node's Ed25519 key, base64."""


Request = Annotated[TrainRequest | EvaluateRequest | CensusRequest | DryRunRequest, Field(discriminator="kind")]
Reply = Annotated[TrainReply | EvaluateReply | CensusReply | DryRunReply | Refusal, Field(discriminator="kind")]


class TrainingManifest(Contract):
    """Which cells a round trained on, by hash; stays on the node (``H/training/manifests/<run_key>-r<round>.json``)."""

    run_key: Identifier
    round: int
    cells: tuple[Sha256, ...]
    """Sorted; a cell's hash is `client_node.datasets.catalogue.cell_hash`."""
    feedback_cells: tuple[Sha256, ...] = ()
    salt: str = Field(default="", max_length=64)
    """Random where training was private: else whoever knows all cells but one could tell that one by the hash."""
