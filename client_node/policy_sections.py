"""What may stand in `policy.toml`: its sections, their settings, and which values those may have."""

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.contracts.training import Identifier

Purpose = Literal["train", "evaluate", "census"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PrivacyFloor = Literal["none", "dp-image", "dp-patient"]

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
DAYS: tuple[Day, ...] = get_args(Day)
EVERY = "*"
Share = Annotated[float, Field(ge=0.05, le=1)]

_HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-(([01]\d|2[0-3]):([0-5]\d)|24:00)$")


class Section(BaseModel):
    """Base of every section: immutable, and a setting that nobody knows is a mistake, not a wish."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetRule(Section):
    """What one data set may be used for, instead of what `purposes` says for all of them."""

    name: str = Field(min_length=1, max_length=200)
    purposes: tuple[Purpose, ...]


class TrainingPolicy(Section):
    """Section `training`; see `policy.default.toml` for what each line means."""

    enabled: bool = True
    purposes: tuple[Purpose, ...] = PURPOSES
    datasets: tuple[str, ...] = (EVERY,)
    dataset: tuple[DatasetRule, ...] = ()
    most_epochs: int = Field(default=10, ge=1)
    most_rounds: int = Field(default=200, ge=1)
    least_participants: int = Field(default=2, ge=1)
    least_examples: int = Field(default=16, ge=1)
    tell_laboratory: bool = True
    hours: str = "00:00-24:00"
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    least_privacy: PrivacyFloor = "none"
    most_epsilon: float = Field(default=8.0, gt=0, le=100, allow_inf_nan=False)
    most_delta: float = Field(default=1e-5, gt=0, le=0.01, allow_inf_nan=False)
    total_epsilon: float = Field(default=16.0, gt=0, le=1000, allow_inf_nan=False)
    total_delta: float = Field(default=1e-5, gt=0, le=0.01, allow_inf_nan=False)
    masked_only: bool = False
    groups_are_patients: tuple[str, ...] = ()
    backbones: tuple[Identifier | Literal["*"], ...] = (EVERY,)
    fetch_bases: bool = True
    most_megabytes: int = Field(default=256, ge=1, le=256)
    gpu_share: Share = 1.0
    gpu_memory: Share = 1.0

    @field_validator("hours")
    @classmethod
    def _known_hours(cls, value: str) -> str:
        if not _HOURS.match(value):
            raise ValueError('hours must read like "20:00-06:00"')
        return value

    @field_validator("dataset")
    @classmethod
    def _each_once(cls, value: tuple[DatasetRule, ...]) -> tuple[DatasetRule, ...]:
        names = [rule.name for rule in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one [[training.dataset]] is named {', '.join(twice)}")
        return value


class ModelsPolicy(Section):
    """Section `models`."""

    trusted_release_key: str = ""
    acceptance: Literal["automatic", "hold"] = "automatic"
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02


class CasesPolicy(Section):
    """Section `cases`."""

    send_flagged: bool = True
    send_incoming: bool = True
    most_per_day: int = Field(default=500, ge=0)
    more_fields: bool = True
    most_more_cells: int = Field(default=400, ge=0)


class AnalysisPolicy(Section):
    """Section `analysis`."""

    coverage: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    view_without_labels: bool = False
    slide_cells: int = Field(default=200, ge=1)
    slide_fields: int = Field(default=2000, ge=1)
    overlays: int = Field(default=12, ge=0, le=200)
