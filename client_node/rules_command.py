"""``hematovision-node rules``: what the flag rules say here, and how well they do on labelled smears."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from client_node.analysis.rule_check import LEAST_TRUE, TARGET, RuleCheck, Share
from client_node.analysis.rules import (
    ImageQuality,
    Per100,
    PercentAbove,
    PercentBelow,
    Presence,
    Rule,
    RuleSet,
    TooFew,
    Uncertain,
    UnknownStain,
)

_DASH: Final = "–"


class RuleLine(BaseModel):
    """A rule as ``rules show`` prints it."""

    model_config = ConfigDict(frozen=True)

    id: str
    severity: str
    kind: str
    enabled: bool
    changed: bool
    """Whether this site's file differs from what was shipped."""
    words: str


class RuleLines(BaseModel):
    """The JSON of ``rules show``."""

    model_config = ConfigDict(frozen=True)

    version: str
    rules: tuple[RuleLine, ...]


def lines(rules: RuleSet, shipped: RuleSet) -> RuleLines:
    """Put every rule into words."""
    return RuleLines(
        version=rules.version,
        rules=tuple(
            RuleLine(
                id=identity,
                severity=rule.severity.value,
                kind=rule.kind,
                enabled=rule.enabled,
                changed=rule != shipped.rules.get(identity),
                words=words(rule),
            )
            for identity, rule in rules.rules.items()
        ),
    )


def words(rule: Rule) -> str:
    """Return when a rule fires."""
    return str(_WORDS[type(rule)](rule))


def _presence(rule: Presence) -> str:
    name = rule.cls.info.name
    return f"one {name} of probability ≥ {rule.least_probability:g}, or {name} in ≥ {rule.least_sets} prediction sets"


def _image(rule: ImageQuality) -> str:
    return f"focus under {rule.least_focus:g}, or background outside {rule.least_brightness:g}–{rule.most_brightness:g}"


# Any: each function takes the very rule it stands under.
_WORDS: Final[dict[type[Any], Any]] = {
    Presence: _presence,
    PercentAbove: lambda rule: (
        f"{rule.cls.info.name} over {rule.limit:g} % (≥ {rule.least_cells} cells of ≥ {rule.least_total})"
    ),
    PercentBelow: lambda rule: f"{rule.cls.info.name} under {rule.limit:g} % (of ≥ {rule.least_total} cells)",
    Per100: lambda rule: (
        f"{rule.cls.info.name}: {rule.limit:g} or more per 100 white cells (≥ {rule.least_cells} cells)"
    ),
    Uncertain: lambda rule: f"over {rule.limit:g} % of cells left open (≥ {rule.least_cells})",
    UnknownStain: lambda rule: (
        f"over {rule.limit:g} % of cells unlike what is known (≥ {rule.least_cells}), most fields without a cell and "
        "of unknown dyes, or a median score over "
        f"{rule.median_score:g}"
    ),
    TooFew: lambda rule: f"fewer than {rule.least_total} white cells",
    ImageQuality: _image,
}


def show_text(output: RuleLines) -> str:
    """Return the table of ``rules show``."""
    found = [f"Rules {output.version}"]
    for rule in output.rules:
        marks = "".join(f" [{mark}]" for mark, on in (("off", not rule.enabled), ("changed here", rule.changed)) if on)
        found.append(f"  {rule.id:<24}{rule.severity:<10}{rule.words}{marks}")
    return "\n".join(found)


def check_text(output: RuleCheck) -> str:
    """Return the table of ``rules check``."""
    found = [
        f"Rules {output.version}, model {output.model_version}, {output.smears} labelled smears",
        f"  {'rule':<24}{'sensitivity':<24}{'missed':<24}{'specificity':<24}review rate",
    ]
    for rule in output.rules:
        parts = (rule.sensitivity, rule.false_negative, rule.specificity)
        found.append(f"  {rule.id:<24}" + "".join(f"{_said(part):<24}" for part in parts) + _said(rule.fired))
    found.append(f"Any flag of morphology: {_said(output.any_flag)} of smears go to a reader.")
    if output.missed is not None:
        found.append(f"Smears that should be flagged and are not: {_said(output.missed)}; wanted under {TARGET:g} %.")
    over = [rule.id for rule in output.rules if _misses(rule.false_negative)]
    if over:
        found.append(f"More than {TARGET:g} % missed: {', '.join(over)}.")
    few = [rule.id for rule in output.rules if rule.sensitivity is None or rule.sensitivity.total < LEAST_TRUE]
    if few:
        found.append(f"Fewer than {LEAST_TRUE} smears tell about: {', '.join(few)}.")
    return "\n".join(found)


def _misses(share: Share | None) -> bool:
    return share is not None and share.percent is not None and share.percent > TARGET


def _said(share: Share | None) -> str:
    if share is None or share.percent is None:
        return _DASH
    return f"{share.percent:.0f} % ({share.low:.0f}–{share.high:.0f}) n {share.total}"
