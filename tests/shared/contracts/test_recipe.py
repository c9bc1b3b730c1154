"""What a recipe asks for in each round of a run."""

from itertools import pairwise

import pytest

from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE), head_epochs=1)


def test_rates_stay_as_they_are_unless_the_recipe_lets_them_fall() -> None:
    for number in (1, 5, 10):
        asked = RECIPE.in_round(number, 10)
        assert (asked.learning_rate, asked.head_learning_rate) == (RECIPE.learning_rate, RECIPE.head_learning_rate)


def test_rates_fall_from_round_to_round_to_the_share_that_is_asked() -> None:
    recipe = RECIPE.model_copy(update={"last_rate": 0.1})
    rates = [recipe.in_round(number, 5) for number in range(1, 6)]
    assert rates[0].learning_rate == recipe.learning_rate
    assert rates[2].learning_rate == pytest.approx(0.55 * recipe.learning_rate)  # half-way down the cosine
    assert rates[-1].learning_rate == pytest.approx(0.1 * recipe.learning_rate)
    assert rates[-1].head_learning_rate == pytest.approx(0.1 * recipe.head_learning_rate)
    assert all(later.learning_rate < sooner.learning_rate for sooner, later in pairwise(rates))


def test_a_single_round_has_all_its_rate() -> None:
    recipe = RECIPE.model_copy(update={"last_rate": 0.1})
    assert recipe.in_round(1, 1).learning_rate == recipe.learning_rate


def test_round_beyond_the_plan_is_as_the_last_one() -> None:
    recipe = RECIPE.model_copy(update={"last_rate": 0.1})
    assert recipe.in_round(7, 5).learning_rate == pytest.approx(0.1 * recipe.learning_rate)


def test_head_alone_learns_in_the_first_round_only() -> None:
    assert [RECIPE.in_round(number, 3).head_epochs for number in (1, 2, 3)] == [1, 0, 0]


def test_a_recipe_of_before_is_signed_as_it_was() -> None:
    assert "last_rate" not in RECIPE.model_dump_json()
    assert '"last_rate":0.1' in RECIPE.model_copy(update={"last_rate": 0.1}).model_dump_json()
