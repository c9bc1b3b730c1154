"""Turns the cells of a smear into flags by a versioned rule file; each flag carries the figures that made it fire."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client_node.analysis.ranges import Ranges, faults, stain_fault
from shared.contracts.analysis import Cell, ClassLimits, Flag, FlagEvidence, Quality, Severity
from shared.contracts.errors import ConfigError
from shared.contracts.ontology import CellClass, rolled_up
from shared.statistics import clopper_pearson

SHIPPED: Final = Path(__file__).with_name("rules.toml")
SITE_FILE: Final = "rules.toml"
_MOST_EVIDENCE: Final = 200
_SEVERITIES: Final = list(Severity)


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    severity: Severity
    kind: Literal["morphology", "quality"] = "morphology"
    enabled: bool = True


class Presence(_Rule):
    """Fires on one sure cell, or on the class in several prediction sets."""

    test: Literal["presence"]
    cls: CellClass = Field(alias="class")
    least_probability: float = Field(ge=0, le=1)
    least_sets: int = Field(ge=1)


class PercentAbove(_Rule):
    """Fires on a share above a limit."""

    test: Literal["percent_above"]
    cls: CellClass = Field(alias="class")
    limit: float = Field(ge=0, le=100)
    least_cells: int = Field(ge=1)
    least_total: int = Field(ge=1)


class PercentBelow(_Rule):
    """Fires on a share below a limit."""

    test: Literal["percent_below"]
    cls: CellClass = Field(alias="class")
    limit: float = Field(ge=0, le=100)
    least_total: int = Field(ge=1)


class Per100(_Rule):
    """Fires on cells outside the denominator, per 100 white cells."""

    test: Literal["per_100"]
    cls: CellClass = Field(alias="class")
    limit: float = Field(ge=0)
    least_cells: int = Field(ge=1)


class Uncertain(_Rule):
    """Fires where the model leaves many cells open."""

    test: Literal["uncertain"]
    limit: float = Field(ge=0, le=100)
    least_cells: int = Field(ge=1)


class UnknownStain(_Rule):
    """Fires where cells look unlike what is known, or most fields have no cell to judge and colours unlike it."""

    test: Literal["unknown_stain"]
    limit: float = Field(ge=0, le=100)
    least_cells: int = Field(ge=1)
    median_score: float = Field(gt=0)


class TooFew(_Rule):
    """Fires where too few white cells were found."""

    test: Literal["too_few"]
    least_total: int = Field(ge=1)


class ImageQuality(_Rule):
    """Fires on blur, wrong exposure and wrong stain.

    The limits here hold where a site has too few images for ranges of its own (`client_node.analysis.ranges`); that of
    the stain is then what the laboratories that taught the model have.
    """

    test: Literal["image"]
    least_focus: float = Field(ge=0)
    least_brightness: float = Field(ge=0, le=255)
    most_brightness: float = Field(ge=0, le=255)


Rule = Annotated[
    Presence | PercentAbove | PercentBelow | Per100 | Uncertain | UnknownStain | TooFew | ImageQuality,
    Field(discriminator="test"),
]


class RuleSet(BaseModel):
    """A rule file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    version: str
    rules: dict[str, Rule]


def load_rules(home: Path | None = None) -> RuleSet:
    """Return the shipped rules, overridden by the site's ``rules.toml`` where ``home`` has one.

    Raises:
        ConfigError: the site's file is no TOML, or changes something that does not exist.
    """
    merged = _shipped()
    site = None if home is None else Path(home) / SITE_FILE
    try:
        if site is not None and site.is_file():
            merged = _merged(merged, tomllib.loads(site.read_text()))
        return RuleSet.model_validate(merged)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError("The site's rules.toml is no readable TOML file: correct it or remove it.") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(f"The site's rules.toml is wrong at {where}: {error.errors()[0]['msg']}.") from error


@cache
def _shipped() -> dict[str, Any]:
    """Any: TOML, validated afterwards; read once, and never changed."""
    return tomllib.loads(SHIPPED.read_text())


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Any: TOML, validated afterwards."""
    result = dict(base)
    for key, value in change.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


@dataclass(frozen=True)
class Evidence:
    """A smear as the rules see it."""

    cells: tuple[Cell, ...]
    quality: Quality
    ranges: Ranges | None = None
    """Of this site's good images of the same kind."""
    dye: tuple[float, float] | None = None
    """The limit for a site without such ranges: what the laboratories have that taught the model, widened."""
    compared: str = "the training images"
    """What strange cells are unlike."""
    fields: int = 0
    """How many fields were looked at."""
    promise: str = ""
    """How often prediction sets hold the true class, and who vouches for it."""

    @cached_property
    def white(self) -> tuple[Cell, ...]:
        """Cells in the denominator."""
        return tuple(cell for cell in self.cells if cell.cls.info.counts)

    def of(self, cls: CellClass) -> tuple[Cell, ...]:
        """Cells of a class, subclasses included."""
        return tuple(cell for cell in self.cells if cell.cls is cls or rolled_up(cell.cls) is cls)


def flags(rules: RuleSet, seen: Evidence) -> tuple[Flag, ...]:
    """Return the flags that fire on a smear, the most severe first, then in the order of the rule file."""
    found = []
    for identity, rule in rules.rules.items():
        evidence = _TESTS[type(rule)](rule, seen) if rule.enabled else None
        if evidence is not None:
            found.append(Flag(id=identity, severity=rule.severity, evidence=evidence, kind=rule.kind))
    return tuple(sorted(found, key=lambda flag: _SEVERITIES.index(flag.severity)))


def class_limits(rules: RuleSet) -> ClassLimits:
    """Return where the enabled rules on a class's share fire, fired or not: corrections may cross a limit."""
    found: dict[CellClass, set[float]] = {}
    for rule in rules.rules.values():
        if rule.enabled and isinstance(rule, PercentAbove | PercentBelow):
            found.setdefault(rule.cls, set()).add(rule.limit)
    return {cls: tuple(sorted(limits)) for cls, limits in found.items()}


def _ids(cells: tuple[Cell, ...]) -> tuple[str, ...]:
    return tuple(cell.id for cell in cells[:_MOST_EVIDENCE])


def _share(text: str, cells: tuple[Cell, ...], total: int, limit: float) -> FlagEvidence:
    low, high = clopper_pearson(len(cells), total)
    percent = 100 * len(cells) / total
    note = "; the interval crosses the limit: count more cells" if low <= limit <= high else ""
    shown = f"{text}: {len(cells)} of {total} = {percent:.1f} % (95 % interval {low:.1f}–{high:.1f} %){note}"
    return FlagEvidence(
        text=shown, cells=_ids(cells), count=len(cells), total=total, percent=percent, low=low, high=high,
        threshold=limit,
    )  # fmt: skip


def _presence(rule: Presence, seen: Evidence) -> FlagEvidence | None:
    sure = tuple(cell for cell in seen.of(rule.cls) if cell.probability >= rule.least_probability)
    possible = tuple(cell for cell in seen.cells if rule.cls in cell.prediction_set)
    if not sure and len(possible) < rule.least_sets:
        return None
    involved = tuple(cell for cell in seen.cells if cell in sure or cell in possible)
    text = f"{rule.cls.info.name}: {len(sure)} cells of probability ≥ {rule.least_probability:g}, "
    text += f"possible in {len(possible)} cells"
    return FlagEvidence(text=text, cells=_ids(involved), count=len(involved), total=len(seen.white))


def _above(rule: PercentAbove, seen: Evidence) -> FlagEvidence | None:
    cells, total = seen.of(rule.cls), len(seen.white)
    if total < rule.least_total or len(cells) < rule.least_cells or 100 * len(cells) <= rule.limit * total:
        return None
    return _share(f"{rule.cls.info.name} above {rule.limit:g} %", cells, total, rule.limit)


def _below(rule: PercentBelow, seen: Evidence) -> FlagEvidence | None:
    cells, total = seen.of(rule.cls), len(seen.white)
    if total < rule.least_total or 100 * len(cells) >= rule.limit * total:
        return None
    return _share(f"{rule.cls.info.name} below {rule.limit:g} %", cells, total, rule.limit)


def _per_100(rule: Per100, seen: Evidence) -> FlagEvidence | None:
    cells, total = seen.of(rule.cls), len(seen.white)
    if not total or len(cells) < rule.least_cells or 100 * len(cells) < rule.limit * total:
        return None
    ratio = 100 * len(cells) / total
    text = f"{rule.cls.info.name}: {len(cells)} beside {total} white cells = {ratio:.1f} per 100"
    return FlagEvidence(text=text, cells=_ids(cells), count=len(cells), total=total, threshold=rule.limit)


def _uncertain(rule: Uncertain, seen: Evidence) -> FlagEvidence | None:
    cells = tuple(cell for cell in seen.cells if len(cell.prediction_set) != 1)
    if len(cells) < rule.least_cells or 100 * len(cells) <= rule.limit * len(seen.cells):
        return None
    told = f" ({seen.promise})" if seen.promise else ""
    return _share(f"cells the model leaves open{told}", cells, len(seen.cells), rule.limit)


def _unknown(rule: UnknownStain, seen: Evidence) -> FlagEvidence | None:
    cells = tuple(cell for cell in seen.cells if cell.ood_score > 1.0)
    strange = seen.quality.strange_fields
    if strange > max(seen.fields, seen.quality.empty_fields) / 2:
        text = f"{strange} fields show no cell to judge, and dyes unlike what is known"
        return FlagEvidence(text=text, count=strange, total=max(seen.fields, seen.quality.empty_fields))
    if not seen.cells or len(cells) < rule.least_cells:
        return None
    median = float(np.median([cell.ood_score for cell in seen.cells]))
    if 100 * len(cells) <= rule.limit * len(seen.cells) and median <= rule.median_score:
        return None
    text = f"cells unlike what is known (median score {median:.2f}; measured against {seen.compared})"
    return _share(text, cells, len(seen.cells), rule.limit)


def _too_few(rule: TooFew, seen: Evidence) -> FlagEvidence | None:
    total = len(seen.white)
    if total >= rule.least_total:
        return None
    text = f"{total} white cells found, {rule.least_total} wanted: add fields"
    return FlagEvidence(text=text, count=total, total=total, threshold=float(rule.least_total))


def _image(rule: ImageQuality, seen: Evidence) -> FlagEvidence | None:
    quality = seen.quality
    if seen.ranges is not None:
        found = faults(seen.ranges, quality)
        return FlagEvidence(text="images " + " and ".join(found)) if found else None
    found = []
    if quality.focus < rule.least_focus:
        found.append(f"blurred (focus {quality.focus:.1f}, at least {rule.least_focus:g} wanted)")
    if not rule.least_brightness <= quality.brightness <= rule.most_brightness:
        wanted = f"{rule.least_brightness:g}–{rule.most_brightness:g}"
        found.append(f"wrongly exposed (background {quality.brightness:.0f}, {wanted} wanted)")
    if seen.dye is not None and quality.dye is not None:
        stain = stain_fault(quality.dye, seen.dye, "the laboratories that taught the model, widened")
        found += [] if stain is None else [stain]
    return FlagEvidence(text="images " + " and ".join(found)) if found else None


# Any: each function takes the very rule it stands under.
_TESTS: Final[dict[type[Any], Callable[[Any, Evidence], FlagEvidence | None]]] = {
    Presence: _presence,
    PercentAbove: _above,
    PercentBelow: _below,
    Per100: _per_100,
    Uncertain: _uncertain,
    UnknownStain: _unknown,
    TooFew: _too_few,
    ImageQuality: _image,
}
