"""What a plan comes to before launch: whom it asks, on which classes, by which recipe and strategy."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlmodel import Session

import server.registry.service as registry
from server.federation import compatibility, repository
from server.federation import privacy as private
from server.federation.recipe import going_on, make_recipe
from server.federation.schemas import RunPlan
from server.federation.strategies import registry as strategies
from server.hospitals.schemas import HospitalView
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.errors import NothingToDoError, UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census, Recipe

MIN_CLASS_CELLS = 20
"""A class is trained when all hospitals that are asked together hold at least this many training cells of it."""


def planned(session: Session, plan: RunPlan) -> tuple[strategies.Parameters, Recipe]:
    """Return the strategy's parameters and the recipe that a plan comes to, by what the hospitals hold at present.

    Raises:
        NothingToDoError: no census shows enough labelled cells.
        UsageError: what was chosen is no recipe, the strategy's parameters are wrong, it does not go with the plan, or
            a hospital that was chosen cannot be asked.
    """
    asked = _asked(session, plan)
    classes = plan.classes or trainable_classes(session, plan.sites)
    if len(classes) < 2:
        raise NothingToDoError(
            "The hospitals' censuses show fewer than two classes with enough labelled cells;"
            " import labelled images first."
        )
    if len(set(classes)) != len(classes):
        raise UsageError("Name each class once.")
    epochs = {} if plan.local_epochs is None else {"local_epochs": plan.local_epochs}
    chosen = {**plan.recipe, **epochs}
    recipe = make_recipe(
        classes, chosen, {**private.start_of(plan.privacy, chosen), **going_on(chosen, _recipe_in_use(session))}
    )
    strategy = strategies.parse(plan.strategy, {**_start_of_strategy(plan), **plan.strategy_parameters})
    compatibility.check(
        strategy,
        min_sites=plan.min_sites,
        hospitals=len(asked),
        privacy=plan.privacy.kinds,
        chosen=plan.sites is not None,
    )
    private.check(plan.privacy, plan.rounds)
    return strategy, strategy.asked(recipe)


def _start_of_strategy(plan: RunPlan) -> Mapping[str, float]:
    """Return what a strategy starts from beside the usual: no guard where the privacy leaves no room for one."""
    blind = compatibility.excluded(compatibility.Need.MEASURE, plan.privacy.kinds)
    return {"norm_limit": 0.0} if blind else {}


def _asked(session: Session, plan: RunPlan) -> frozenset[str]:
    """Return the ids of the hospitals that a plan asks.

    Raises:
        UsageError: one has no approved training node or is named twice, or they are fewer than a round needs.
    """
    there = joined(session)
    if plan.sites is None:
        return there
    if wrong := [site for site in dict.fromkeys(plan.sites) if site not in there]:
        raise UsageError(
            f"No hospital {' and no '.join(wrong)} can be asked; those with an approved training node are:"
            f" {', '.join(sorted(there)) or 'none yet'}."
        )
    if len(set(plan.sites)) != len(plan.sites):
        raise UsageError("Name each hospital once.")
    if len(plan.sites) < plan.min_sites:
        raise UsageError(
            f"A round needs {plan.min_sites} hospitals and {len(plan.sites)}"
            f" {'is' if len(plan.sites) == 1 else 'are'} chosen: choose more, or lower the least number of hospitals."
        )
    return frozenset(plan.sites)


def joined(session: Session) -> frozenset[str]:
    """Return the ids of the hospitals with an approved training node."""
    return frozenset(node.hospital_id for node in repository.training_nodes(session))


def trains(hospital: HospitalView) -> bool:
    """Whether a hospital has an approved training node, and so can be asked."""
    return any(node.mode is NodeMode.TRAINING and node.state is EnrolmentState.APPROVED for node in hospital.nodes)


def asks(plan: RunPlan | None, hospital_id: str) -> bool:
    """Whether a plan asks a hospital, if it can be asked; no plan asks all."""
    return plan is None or plan.sites is None or hospital_id in plan.sites


def chosen_sites(kept: Mapping[str, Any]) -> frozenset[str] | None:  # Any: a plan's JSON
    """Return whom a kept plan asks; None: every approved hospital, as from before they could be chosen."""
    sites = kept.get("sites")
    return None if sites is None else frozenset(sites)


def usual_recipe(session: Session) -> Recipe:
    """Return what a launch starts from at present, of all classes: that of the model in use, where there is one."""
    return make_recipe(list(CellClass), {}, going_on({}, _recipe_in_use(session)))


def _recipe_in_use(session: Session) -> Recipe | None:
    used = registry.current(session)
    return used.card.recipe if used else None


def trainable_classes(session: Session, sites: Collection[str] | None = None) -> list[CellClass]:
    """Return the classes that the censuses together hold enough training cells of, in reporting order.

    Where some hospital labels a class only as a whole (neutrophil), its subclasses are counted into it. With ``sites``
    the censuses of these hospitals alone.
    """
    counts: Counter[CellClass] = Counter()
    for record in repository.censuses(session):
        if sites is None or record.hospital_id in sites:
            for row in Census.model_validate(record.census).rows:
                counts[row.cls] += row.train
    held = {cls for cls, count in counts.items() if count}
    merged: Counter[CellClass] = Counter()
    for cls, count in counts.items():
        parent = cls.info.parent
        merged[parent if parent in held else cls] += count
    return sorted((cls for cls, count in merged.items() if count >= MIN_CLASS_CELLS), key=lambda cls: cls.order)
