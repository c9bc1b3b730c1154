"""What goes together in a run: strategy, privacy and least number of hospitals. The one place that says so.

A privacy measure takes something away from the centre; a strategy (or another part of a run) needs something of it.
Where the two meet stands a sentence for the coordinator, and the run is not launched.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from server.federation.strategies.registry import FedProxParameters, Parameters
from shared.contracts.errors import UsageError


class Privacy(StrEnum):
    """How a run protects what hospitals train on, beside that images never travel."""

    SITE_DP = "site_dp"
    """DP-SGD in each hospital's trainer: its update says little about one image or patient."""
    CENTRAL_DP = "central_dp"
    """The centre clips and adds noise: the model says little about one hospital."""
    SECURE_AGGREGATION = "secure_aggregation"
    """The centre sees the sum of the updates only."""


class Need(StrEnum):
    """What a part of a run cannot do without."""

    COMPARE = "compare"
    """Robust strategies: every hospital's own update, beside the others'."""
    MEASURE = "measure"
    """The guard: the size of every hospital's own update, noiseless."""
    PULL = "pull"
    """FedProx: a second term in the loss of local training."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A privacy measure and a need that do not go together, and why, with what to do instead."""

    privacy: Privacy
    need: Need
    sentence: str


EXCLUSIONS: Final = (
    Exclusion(
        Privacy.SECURE_AGGREGATION,
        Need.COMPARE,
        "Under secure aggregation the centre sees only the sum of the updates, so a strategy cannot compare hospitals:"
        " choose one that averages, or give up secure aggregation.",
    ),
    Exclusion(
        Privacy.SECURE_AGGREGATION,
        Need.MEASURE,
        "Under secure aggregation the centre cannot see how large one update is: set the largest update to 0.",
    ),
    Exclusion(
        Privacy.CENTRAL_DP,
        Need.COMPARE,
        "The noise of central differential privacy is measured for a mean; what a robust strategy does with one"
        " hospital's update is not bounded in the same way: choose a strategy that averages.",
    ),
    Exclusion(
        Privacy.CENTRAL_DP,
        Need.MEASURE,
        "Refusing an update by its size is a decision on one hospital's data without noise, which central differential"
        " privacy does not account for; it clips every update anyway: set the largest update to 0.",
    ),
    Exclusion(
        Privacy.SITE_DP,
        Need.PULL,
        "DP-SGD replaces the gradient by the noisy mean of single images' gradients, in which FedProx's pull, that"
        " belongs to no image, is lost: choose FedAvg.",
    ),
)
APART: Final = {
    frozenset({Privacy.CENTRAL_DP, Privacy.SECURE_AGGREGATION}): (
        "Central differential privacy needs the centre to clip each hospital's update, which secure aggregation hides:"
        " choose one of them."
    ),
}
"""Privacy measures that exclude each other."""
LEAST_SITES: Final = {
    Privacy.CENTRAL_DP: (
        20,
        "Central differential privacy hides one hospital among the others and needs {least} of them",
    ),
    Privacy.SECURE_AGGREGATION: (
        3,
        "With fewer than {least} hospitals a sum gives each away to the other, so secure aggregation needs {least}",
    ),
}


def needs(strategy: Parameters) -> frozenset[Need]:
    """Return what a run with this strategy cannot do without."""
    found: set[Need] = set()
    if strategy.compares:
        found.add(Need.COMPARE)
    if strategy.norm_limit:
        found.add(Need.MEASURE)
    if isinstance(strategy, FedProxParameters):
        found.add(Need.PULL)
    return frozenset(found)


def excluded(need: Need, privacy: Collection[Privacy]) -> bool:
    """Whether one of these measures leaves no room for a need, whatever else a run has."""
    return any(rule.need is need and rule.privacy in privacy for rule in EXCLUSIONS)


def problems(
    strategy: Parameters,
    *,
    min_sites: int,
    hospitals: int,
    privacy: Collection[Privacy] = (),
    chosen: bool = False,
) -> list[str]:
    """Return a sentence for everything that does not go together; nothing: the run may be launched.

    ``min_sites``: the least number of hospitals a round of the run needs; ``hospitals``: how many of those that are
    asked have an approved training node; ``chosen``: whether only some are asked.
    """
    needed = needs(strategy)
    found = [rule.sentence for rule in EXCLUSIONS if rule.privacy in privacy and rule.need in needed]
    found += [sentence for together, sentence in APART.items() if together <= set(privacy)]
    least = [(strategy.least_sites, f"{strategy.title} needs {strategy.least_sites} hospitals in a round")]
    least += [(count, text.format(least=count)) for kind, (count, text) in LEAST_SITES.items() if kind in privacy]
    for count, text in least:
        if hospitals < count:
            verb = "has" if hospitals == 1 else "have"
            whose = f"{hospitals} of those chosen {verb}" if chosen else f"{hospitals} {verb}"
            found.append(f"{text}; {whose} an approved training node.")
        elif min_sites < count:
            found.append(f"{text}: raise the least number of hospitals from {min_sites} to {count}.")
    return found


def check(
    strategy: Parameters,
    *,
    min_sites: int,
    hospitals: int,
    privacy: Collection[Privacy] = (),
    chosen: bool = False,
) -> None:
    """Refuse what does not go together; see `problems`.

    Raises:
        UsageError: with every sentence.
    """
    found = problems(strategy, min_sites=min_sites, hospitals=hospitals, privacy=privacy, chosen=chosen)
    if found:
        raise UsageError(" ".join(found))
