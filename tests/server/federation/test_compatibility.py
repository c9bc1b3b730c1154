"""What goes together in a run, exclusion by exclusion."""

import itertools

import pytest

from server.federation.compatibility import APART, EXCLUSIONS, LEAST_SITES, Need, Privacy, check, problems
from server.federation.strategies.registry import (
    OFFERED,
    FedAdamParameters,
    FedAvgParameters,
    FedProxParameters,
    MultiKrumParameters,
    Parameters,
    TrimmedMeanParameters,
)
from shared.contracts.errors import UsageError

MANY = 40
NO_GUARD = {"norm_limit": 0}
BARE: dict[Need, Parameters] = {
    Need.COMPARE: MultiKrumParameters(norm_limit=0),
    Need.MEASURE: FedAvgParameters(),
    Need.PULL: FedProxParameters(norm_limit=0),
}
"""A run with this need and no other."""


@pytest.mark.parametrize(("privacy", "need"), list(itertools.product(Privacy, Need)))
def test_each_exclusion_alone_is_said_by_its_own_sentence(privacy: Privacy, need: Need) -> None:
    found = problems(BARE[need], min_sites=MANY, hospitals=MANY, privacy={privacy})
    assert found == [rule.sentence for rule in EXCLUSIONS if (rule.privacy, rule.need) == (privacy, need)]


def test_table_excludes_what_it_should() -> None:
    assert {(rule.privacy, rule.need) for rule in EXCLUSIONS} == {
        (Privacy.SECURE_AGGREGATION, Need.COMPARE),
        (Privacy.SECURE_AGGREGATION, Need.MEASURE),
        (Privacy.CENTRAL_DP, Need.COMPARE),
        (Privacy.CENTRAL_DP, Need.MEASURE),
        (Privacy.SITE_DP, Need.PULL),
    }


@pytest.mark.parametrize("kind", OFFERED.values(), ids=lambda kind: kind.name)
def test_every_strategy_runs_without_privacy_measures_where_there_are_enough_hospitals(kind: type[Parameters]) -> None:
    assert problems(kind(), min_sites=5, hospitals=5) == []


def test_averaging_without_guard_goes_with_every_single_measure() -> None:
    for strategy, privacy in itertools.product((FedAvgParameters, FedAdamParameters), Privacy):
        assert problems(strategy(norm_limit=0), min_sites=MANY, hospitals=MANY, privacy={privacy}) == []


def test_measures_that_exclude_each_other() -> None:
    bare = FedAvgParameters(norm_limit=0)
    [sentence] = problems(bare, min_sites=MANY, hospitals=MANY, privacy=set(Privacy))
    assert sentence == APART[frozenset({Privacy.CENTRAL_DP, Privacy.SECURE_AGGREGATION})]
    together = {Privacy.SITE_DP, Privacy.SECURE_AGGREGATION}
    assert problems(bare, min_sites=MANY, hospitals=MANY, privacy=together) == []


@pytest.mark.parametrize(
    ("strategy", "min_sites", "hospitals", "sentence"),
    [
        (
            TrimmedMeanParameters(),
            2,
            5,
            "Trimmed mean needs 3 hospitals in a round: raise the least number of hospitals from 2 to 3.",
        ),
        (TrimmedMeanParameters(), 2, 2, "Trimmed mean needs 3 hospitals in a round; 2 have an approved training node."),
        (
            MultiKrumParameters(),
            4,
            9,
            "Multi-Krum needs 5 hospitals in a round: raise the least number of hospitals from 4 to 5.",
        ),
        (
            MultiKrumParameters(byzantine_sites=2),
            7,
            6,
            "Multi-Krum needs 7 hospitals in a round; 6 have an approved training node.",
        ),
        (MultiKrumParameters(), 1, 1, "Multi-Krum needs 5 hospitals in a round; 1 has an approved training node."),
    ],
)
def test_too_few_hospitals_are_refused_with_a_sentence(
    strategy: Parameters, min_sites: int, hospitals: int, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(strategy, min_sites=min_sites, hospitals=hospitals)
    assert caught.value.message == sentence
    check(strategy, min_sites=strategy.least_sites, hospitals=strategy.least_sites)


@pytest.mark.parametrize("privacy", LEAST_SITES)
def test_privacy_needs_company(privacy: Privacy) -> None:
    least, _ = LEAST_SITES[privacy]
    bare = FedAvgParameters(norm_limit=0)
    assert problems(bare, min_sites=least, hospitals=least, privacy={privacy}) == []
    [few] = problems(bare, min_sites=least - 1, hospitals=least, privacy={privacy})
    assert few.endswith(f"raise the least number of hospitals from {least - 1} to {least}.")
    [too_few] = problems(bare, min_sites=2, hospitals=least - 1, privacy={privacy})
    assert too_few.endswith(f"{least - 1} have an approved training node.")


def test_every_problem_is_told_at_once() -> None:
    found = problems(MultiKrumParameters(), min_sites=2, hospitals=9, privacy={Privacy.SECURE_AGGREGATION})
    assert len(found) == 4
