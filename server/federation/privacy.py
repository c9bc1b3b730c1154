"""How a run protects what hospitals train on: chosen before launch, in words, and what the accountant makes of it.

Read by the web process. At the hospitals the trainer's accountant counts (Opacus'); here stands only what central noise
spends, where every hospital takes part in every round and so nothing is sampled.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server.federation import compatibility
from shared.contracts.errors import UsageError
from shared.contracts.privacy import Delta, Epsilon, ModelPrivacy, Privacy, PrivacyKind, PrivacyUnit

Value = str | int | float | None


class Measure(StrEnum):
    """The names at the command line, in the form and in the database."""

    NONE = "none"
    DP_SGD = "dp-sgd"
    """Noise at the hospitals, before anything leaves them."""
    CENTRAL_DP = "central-dp"
    """Noise at the centre, on the average."""
    SECURE_AGGREGATION = "secure-aggregation"
    """No noise; the centre learns the sum of the updates and none of them."""


TITLES: Final[Mapping[Measure, str]] = MappingProxyType(
    {
        Measure.NONE: "No noise",
        Measure.DP_SGD: "Noise at the hospitals",
        Measure.CENTRAL_DP: "Noise at the centre",
        Measure.SECURE_AGGREGATION: "Secure aggregation",
    }
)
SENTENCES: Final[Mapping[Measure, str]] = MappingProxyType(
    {
        Measure.NONE: "Images stay where they are; an update may still tell something about them.",
        Measure.DP_SGD: (
            "What leaves a hospital says almost nothing about any one image (or patient), not to the centre either."
        ),
        Measure.CENTRAL_DP: (
            "The model's numbers do not tell whether any one hospital took part; its card names who evaluated it, and"
            " the centre still sees each update. Needs 20 hospitals, and very many for a good model."
        ),
        Measure.SECURE_AGGREGATION: (
            "The centre sees the sum of the hospitals' updates and none of them, so it cannot judge one hospital's"
            " by its size. Needs 3 hospitals; with 3 none may be lost on the way, with 4 one. The model"
            " itself hides nothing."
        ),
    }
)
COSTS: Final[Mapping[Measure, str]] = MappingProxyType(
    {
        Measure.DP_SGD: "Measured at ε = 8 on one hospital's 2,522 cells: 13.6 points of macro-F1 lost (11.0–16.2).",
        Measure.SECURE_AGGREGATION: (
            "It costs no accuracy: a value of the average moves by less than four millionths."
        ),
    }
)
"""What each costs, as docs/privacy.md has measured it; nothing of what was not measured on real cells."""
_KINDS: Final = {
    Measure.DP_SGD: compatibility.Privacy.SITE_DP,
    Measure.CENTRAL_DP: compatibility.Privacy.CENTRAL_DP,
    Measure.SECURE_AGGREGATION: compatibility.Privacy.SECURE_AGGREGATION,
}
NOISED: Final = (Measure.DP_SGD, Measure.CENTRAL_DP)
"""The measures that ε, δ and clip belong to."""
RECIPE: Final[Mapping[str, Value]] = MappingProxyType(
    {
        "balance": "none",
        "batch_size": 1024,
        "local_epochs": 10,
        "head_learning_rate": 0.15,
        "last_rate": 1.0,
        "input_size": 160,
        "frozen_stages": None,
        "views": 2,
        "head_epochs": 0,
        "patience": 0,
        "proximal_mu": 0.0,
    }
)
"""What a private run starts from instead of the usual recipe; see docs/privacy.md for how it was chosen."""
_FIXED: Final[Mapping[str, Value]] = MappingProxyType({"balance": "none", "patience": 0, "proximal_mu": 0.0})
_ORDERS: Final = np.concatenate([np.arange(1.05, 20.0, 0.05), np.arange(20.0, 512.0)])
_MOST_NOISE: Final = 1000.0


class RunPrivacy(BaseModel):
    """A run's privacy as a coordinator chose it; (ε, δ) are for the whole run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: Measure = Measure.NONE
    unit: PrivacyUnit = PrivacyUnit.IMAGE
    """Of `Measure.DP_SGD`; with noise at the centre it is the hospital."""
    epsilon: Epsilon = 8.0
    delta: Delta = 1e-5
    clip: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    """Largest L2 norm of a unit's gradient; with noise at the centre, of a hospital's update."""

    @model_validator(mode="after")
    def _unit_of_sites(self) -> Self:
        if self.measure is not Measure.DP_SGD and self.unit is not PrivacyUnit.IMAGE:
            raise ValueError("the unit can be chosen for dp-sgd only")
        return self

    @property
    def noised(self) -> bool:
        """Whether ε, δ and clip say anything."""
        return self.measure in NOISED

    @property
    def kinds(self) -> frozenset[compatibility.Privacy]:
        """What of the compatibility table this is."""
        return frozenset({_KINDS[self.measure]} if self.measure in _KINDS else ())

    @property
    def asked(self) -> Privacy | None:
        """What the nodes are asked for; None: nothing."""
        if self.measure is not Measure.DP_SGD:
            return None
        return Privacy(kind=PrivacyKind.DP_SGD, unit=self.unit, epsilon=self.epsilon, delta=self.delta, clip=self.clip)

    def of_model(self, spent: float | None) -> ModelPrivacy | None:
        """Return what a model of the run promises by noise; ``spent``: by the centre's, as far as that is known."""
        if not self.noised:
            return None
        central = self.measure is Measure.CENTRAL_DP
        return ModelPrivacy(
            measure="central-dp" if central else "dp-sgd",
            unit="hospital" if central else self.unit,
            epsilon=self.epsilon if spent is None else spent,
            delta=self.delta,
        )

    @property
    def text(self) -> str:
        """In a few words, for pages and log books."""
        if not self.noised:
            return self.measure.value
        unit = self.unit.value if self.measure is Measure.DP_SGD else "hospital"
        return f"{self.measure.value} (unit {unit}, ε {self.epsilon:g}, δ {self.delta:g}, clip {self.clip:g})"


def choose(measure: str, **given: Value) -> RunPrivacy:
    """Return the chosen privacy; what is None or empty in ``given`` is as usual.

    Raises:
        UsageError: a value is wrong, or there is nothing for it to apply to.
    """
    said = {name: value for name, value in given.items() if value not in (None, "")}
    if said and measure in set(Measure) - set(NOISED):
        raise UsageError(f"Without noise there is no {' and no '.join(said)}: choose dp-sgd or central-dp.")
    try:
        return RunPrivacy.model_validate({"measure": measure, **said})
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'privacy'}: {one['msg']}" for one in error.errors())
        raise UsageError(f"This privacy cannot be had: {'; '.join(problems)}.") from error


def start_of(privacy: RunPrivacy, chosen: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return what the recipe of a run starts from beside the usual.

    Raises:
        UsageError: something was chosen for which noise at the hospitals leaves no room.
    """
    if privacy.measure is not Measure.DP_SGD:
        return {}
    for name, only in _FIXED.items():
        if name in chosen and str(chosen[name]) not in (str(only), f"{only:g}" if isinstance(only, float) else ""):
            raise UsageError(
                f"With dp-sgd the recipe's {name} must be {only}: anything else looks at a hospital's cells or labels"
                " without noise."
            )
    return RECIPE


def check(privacy: RunPrivacy, rounds: int) -> None:
    """Raise `UsageError` for a promise that the centre cannot keep over so many rounds."""
    if privacy.measure is Measure.CENTRAL_DP:
        central_noise(privacy.epsilon, rounds, privacy.delta)


def central_epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return ε of ``rounds`` Gaussian releases (Mironov 2017; the conversion: Balle et al. 2020)."""
    if not rounds:
        return 0.0
    divergence = rounds * _ORDERS / (2.0 * noise_multiplier**2)
    found = divergence - (np.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1.0) + np.log((_ORDERS - 1.0) / _ORDERS)
    return float(max(found.min(), 0.0))


def central_noise(epsilon: float, rounds: int, delta: float) -> float:
    """Return the least noise multiplier, within a thousandth, with which ``rounds`` spend at most ``epsilon``.

    Raises:
        UsageError: there is none that leaves anything of a model.
    """
    low, high = 0.0, _MOST_NOISE
    if central_epsilon(high, rounds, delta) > epsilon:
        raise UsageError(f"ε = {epsilon:g} at δ = {delta:g} cannot be kept over {rounds} rounds: ask for a larger ε.")
    while high - low > 1e-3 * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if central_epsilon(middle, rounds, delta) <= epsilon else (middle, high)
    return high
