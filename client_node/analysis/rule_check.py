"""How well each rule flags: on smears whose cells are labelled, beside what the rule says of the labels themselves."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from client_node.analysis.model import current_model_dir
from client_node.analysis.ranges import load_ranges
from client_node.analysis.rules import (
    Evidence,
    Per100,
    PercentAbove,
    PercentBelow,
    Presence,
    Rule,
    RuleSet,
    flags,
    load_rules,
)
from client_node.analysis.service import Analyser, evidence
from client_node.analysis.smears import SmearPlan, plan_smears, smear_flags
from client_node.datasets.importers.candidate import Candidate
from client_node.datasets.importers.csv import candidates
from client_node.datasets.labelled import Kind
from shared.contracts.analysis import Cell, Flag, Quality
from shared.contracts.errors import NoLabelsError
from shared.contracts.ontology import CellClass, parse_class
from shared.statistics import clopper_pearson

Progress = Callable[[int, int], None]
TARGET: Final = 5.0
"""Per cent of true flags that a rule may miss (ISLH practice)."""
LEAST_TRUE: Final = 20
"""With fewer smears on which a rule should fire, its sensitivity is hardly known."""
_JUDGED: Final = (Presence, PercentAbove, PercentBelow, Per100)
_LABELS: Final = "labels.csv"


class Share(BaseModel):
    """A share in per cent with its exact 95 % interval; of ``total`` 0 nothing is known."""

    model_config = ConfigDict(frozen=True)

    count: int
    total: int
    low: float
    high: float

    @property
    def percent(self) -> float | None:
        """The share, or None of nothing."""
        return 100.0 * self.count / self.total if self.total else None


class RuleFigures(BaseModel):
    """What a rule did on the labelled smears."""

    model_config = ConfigDict(frozen=True)

    id: str
    fired: Share
    """Of all smears: its review rate."""
    sensitivity: Share | None
    """Of the smears on which it should have fired; None where the smears do not tell."""
    false_negative: Share | None
    specificity: Share | None
    """Of those on which it should not."""


class RuleCheck(BaseModel):
    """The JSON of ``rules check``."""

    model_config = ConfigDict(frozen=True)

    version: str
    model_version: str
    smears: int
    rules: tuple[RuleFigures, ...]
    any_flag: Share
    """Smears with any flag of morphology: the review rate."""
    missed: Share | None
    """Smears on which some rule of morphology should have fired, and none did."""


@dataclass(frozen=True, slots=True)
class _Checked:
    fired: frozenset[str]
    wanted: frozenset[str]
    known: frozenset[str]
    """The rules of which the smear tells whether they should fire."""


def check_rules(
    home: Path, data: Path, *, model_dir: Path | None = None, progress: Progress | None = None
) -> RuleCheck:
    """Analyse the labelled smears in ``data`` by the node's model and rules; compare with the labels.

    A smear is what `plan_smears` takes for one; its cells are labelled in ``labels.csv`` of ``data`` or of the smear's
    folder. What a rule should say is what it says of the labels; for rules about image quality and doubt, what the
    smear's ``smear.json`` lists under ``flags`` (``[]``: none). Nothing is kept in the node's home.

    Raises:
        NoLabelsError: no smear is labelled.
        ConfigError, ModelInvalidError, NotFoundError, NothingToDoError: see `load_rules`, `load_model`, `plan_smears`.
    """
    rules = load_rules(home)
    site = load_ranges(home)
    plans = plan_smears([data])
    truths = _truths(data, plans)
    checked, version = [], ""
    with tempfile.TemporaryDirectory(prefix="hematovision-rules-") as folder:
        analyser = Analyser(Path(folder), model_dir=model_dir or current_model_dir(home))
        for number, plan in enumerate(plans):
            labels = [cls for image in plan.images for cls in truths.get(image.path.resolve(), ())]
            if labels:
                (smear,) = analyser.analyze_plans([plan]).smears
                version = smear.model_version
                seen = evidence(analyser.model, site, smear.fields, smear.cells, smear.quality)
                checked.append(_checked(flags(rules, seen), rules, labels, smear_flags(plan)))
            if progress is not None:
                progress(number + 1, len(plans))
    if not checked:
        raise NoLabelsError(f"No smear in {data.name} has labelled cells: put a labels.csv (path, class) beside them.")
    morphology = {identity for identity, rule in rules.rules.items() if rule.kind == "morphology"}
    wanted = [one for one in checked if one.wanted & morphology]
    return RuleCheck(
        version=rules.version,
        model_version=version,
        smears=len(checked),
        rules=tuple(_figures(identity, checked) for identity, rule in rules.rules.items() if rule.enabled),
        any_flag=_share([bool(one.fired & morphology) for one in checked]),
        missed=_share([not one.fired & morphology for one in wanted]) if wanted else None,
    )


def _truths(data: Path, plans: Sequence[SmearPlan]) -> dict[Path, list[CellClass]]:
    """Return the labelled classes of each image."""
    found: defaultdict[Path, list[CellClass]] = defaultdict(list)
    folders = dict.fromkeys([data, *(image.path.parent for plan in plans for image in plan.images)])
    for folder in folders:
        if not (folder / _LABELS).is_file():
            continue
        for one in candidates(folder, folder / _LABELS):
            if isinstance(one, Candidate) and one.kind in (Kind.CELL, Kind.BOX):
                cls = parse_class(one.label)
                if cls is not None:
                    found[one.path.resolve()].append(cls)
    return found


def _checked(
    raised: Sequence[Flag], rules: RuleSet, labels: Sequence[CellClass], stated: frozenset[str] | None
) -> _Checked:
    truth = tuple(
        Cell.model_validate(
            {"id": f"t{number}", "field": None, "box": (0, 0, 1, 1), "class": cls, "probability": 1.0,
             "prediction_set": (cls,), "ood_score": 0.0}
        )
        for number, cls in enumerate(labels)
    )  # fmt: skip
    sound = Quality(white_cells=sum(cls.info.counts for cls in labels), focus=1e9, brightness=220.0, ood_fraction=0.0)
    told = {identity for identity, rule in rules.rules.items() if _is_judged(rule)}
    wanted = {flag.id for flag in flags(rules, Evidence(truth, sound)) if flag.id in told}
    if stated is not None:
        others = set(rules.rules) - told
        told |= others
        wanted |= stated & others
    return _Checked(frozenset(flag.id for flag in raised), frozenset(wanted), frozenset(told))


def _is_judged(rule: Rule) -> bool:
    return isinstance(rule, _JUDGED)


def _figures(identity: str, checked: Iterable[_Checked]) -> RuleFigures:
    smears = list(checked)
    told = [one for one in smears if identity in one.known]
    should = [identity in one.fired for one in told if identity in one.wanted]
    should_not = [identity not in one.fired for one in told if identity not in one.wanted]
    return RuleFigures(
        id=identity,
        fired=_share([identity in one.fired for one in smears]),
        sensitivity=_share(should) if should else None,
        false_negative=_share([not hit for hit in should]) if should else None,
        specificity=_share(should_not) if should_not else None,
    )


def _share(hits: Sequence[bool]) -> Share:
    low, high = clopper_pearson(sum(hits), len(hits))
    return Share(count=sum(hits), total=len(hits), low=low, high=high)
