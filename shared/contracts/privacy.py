"""What a training request promises about privacy. A hospital's policy sets the least it accepts.

Only differentially private training by the node itself is described here: noise that the centre adds after it has seen
the updates protects against others, not against the centre, and so never meets a hospital's floor.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contracts.analysis import Contract

Epsilon = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0, le=0.01, allow_inf_nan=False)]


class PrivacyKind(StrEnum):
    """How the node trains."""

    NONE = "none"
    DP_SGD = "dp-sgd"
    """Each unit's gradient is clipped and noise is added to their sum (Abadi et al. 2016)."""


class PrivacyUnit(StrEnum):
    """Whose presence among the training data the noise hides."""

    IMAGE = "image"
    PATIENT = "patient"
    """All images of one patient together; stronger than `IMAGE` at the same figures."""


class Privacy(Contract):
    """Privacy of one run at one hospital: (ε, δ) over *all* its rounds, and how the noise is made."""

    kind: PrivacyKind = PrivacyKind.NONE
    unit: PrivacyUnit = PrivacyUnit.IMAGE
    epsilon: Epsilon | None = None
    """Target for the whole run; smaller is more private."""
    delta: Delta | None = None
    clip: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """Largest L2 norm of one unit's gradient."""
    noise_multiplier: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """Standard deviation of the noise, in units of ``clip``; None: found from ε, δ, the steps and the site's cells."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        stated = (self.epsilon, self.delta, self.clip)
        if self.kind is PrivacyKind.DP_SGD and None in stated:
            raise ValueError("dp-sgd needs epsilon, delta and clip")
        if self.kind is PrivacyKind.NONE and any(value is not None for value in (*stated, self.noise_multiplier)):
            raise ValueError("without a kind there is nothing to state")
        return self


class PrivacySpent(Contract):
    """What a hospital's part in a run has spent so far, this round included; ε alone, rounded, and not how it was made:
    the exact figure, and the noise, follow from the number of its units, and so would tell it.
    """

    unit: PrivacyUnit
    epsilon: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """Rounded up to a tenth."""
    delta: Delta


class ModelPrivacy(Contract):
    """What the tensors of a model version tell of each unit that they learnt from, at most."""

    measure: Literal["dp-sgd", "central-dp"]
    """Who added the noise: each hospital, or the centre."""
    unit: PrivacyUnit | Literal["hospital"]
    epsilon: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """With noise at the hospitals the bound that all of them kept; at the centre, what was spent of every hospital."""
    delta: Delta
