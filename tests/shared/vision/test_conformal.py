"""Prediction sets hold the true class as often as they say, by however few cells."""

import numpy as np
import pytest

from shared.contracts.training import CalibrationSummary
from shared.vision import conformal
from shared.vision.calibration import apply, default_adapter, fit_adapter
from shared.vision.conformal import LEAST_HALF, LEVELS, borrow, fit, folds, halves, needed, quantile, told
from tests.shared.vision.test_calibration import sample

CARD = CalibrationSummary(temperature=1.3, conformal_quantile=0.7, quantiles=((0.9, 0.6), (0.95, 0.7), (0.99, 0.9)))


def test_so_many_cells_vouch_for_a_level_and_fewer_only_by_all_classes() -> None:
    assert [needed(level) for level in (0.8, 0.9, 0.95, 0.99, 0.999)] == [4, 9, 19, 99, 999]
    found = np.linspace(0.0, 0.5, 99)
    assert quantile(found, 0.99) == 0.5
    assert quantile(found[:98], 0.99) == 1.0
    assert quantile(found, 0.95) == pytest.approx(found[94])


def test_few_cells_vouch_for_what_they_can_and_borrow_the_rest() -> None:
    found = np.linspace(0.0, 0.5, 45)
    assert fit(found, 0.99, 0.9) == (0.9, 45 / 46)
    assert fit(found, 0.99, 0.2) == (0.5, 45 / 46)  # never smaller than the own cells ask for
    assert fit(np.zeros(0), 0.99, 0.9) == (0.9, None)
    assert fit(np.linspace(0.0, 0.5, 99), 0.99, 0.9) == (0.5, 0.99)


def test_a_card_lends_the_next_higher_level_and_shrinks_the_tail_beyond() -> None:
    assert [borrow(CARD, level) for level in (0.5, 0.9, 0.92, 0.95, 0.99)] == [0.6, 0.6, 0.7, 0.7, 0.9]
    assert borrow(CARD, 0.999) == pytest.approx(0.99)
    old = CalibrationSummary(temperature=1.0, conformal_quantile=0.7)
    assert borrow(old, 0.95) == 0.7
    assert borrow(old, 0.99) == pytest.approx(0.94)


def test_a_site_without_labels_uses_the_cards_temperature_and_quantile_of_its_own_coverage() -> None:
    adapter = default_adapter(CARD, level=0.99)
    assert (adapter.temperature, adapter.conformal_quantile, adapter.level) == (1.3, 0.9, 0.99)
    assert adapter.promised is None
    assert "no cell of this site vouches" in adapter.promise


@pytest.mark.parametrize("count", [20, 45, 98])
def test_with_few_cells_coverage_is_what_is_promised_and_sets_still_tell_something(count: int) -> None:
    others = fit_adapter(*sample(4000, sharpness=2.0, seed=99), level=0.99)
    covered, sizes, promised = [], [], set()
    logits, features, labels = sample(2000, sharpness=2.0, seed=98)
    for seed in range(12):
        adapter = fit_adapter(*sample(count, sharpness=2.0, seed=seed), level=0.99, told=others.summary)
        sets = apply(adapter, logits, features).sets
        covered.append(sets[np.arange(len(labels)), labels].mean())
        sizes.append(sets.sum(axis=1).mean())
        promised.add(adapter.promised)
    assert promised == {count / (count + 1)}
    assert np.mean(covered) >= 0.985  # the largest own score alone gives n / (n + 1) on average: 0.952 with 20
    assert np.mean(sizes) < 4.5  # of five


def test_halves_keep_groups_together_and_leave_enough_for_the_quantile() -> None:
    groups = [f"g{number // 3}" for number in range(300)]
    mask = halves(groups, 0.95)
    assert mask is not None
    assert all(len({bool(one) for one in mask[start : start + 3]}) == 1 for start in range(0, 300, 3))
    assert min(mask.sum(), (~mask).sum()) >= LEAST_HALF
    assert halves(groups, 0.97) is not None
    assert halves(groups, 0.99) is None  # 99 cells vouch for it: a quantile of 150 is one of the largest two scores
    assert halves(["one"] * 300, 0.95) is None


def test_folds_hold_each_cell_once_and_keep_groups_together() -> None:
    groups = [f"g{number // 2}" for number in range(60)]
    masks = list(folds(60, groups))
    assert np.sum(masks, axis=0).tolist() == [1] * 60
    assert all((mask[0::2] == mask[1::2]).all() for mask in masks)
    assert len(list(folds(10, ["same"] * 10))) == 5


def test_scores_are_of_cells_that_the_temperature_was_not_fitted_on() -> None:
    logits, features, labels = sample(200, seed=3)
    groups = [f"g{number}" for number in range(200)]
    mask = halves(groups, 0.95)
    assert mask is not None
    halved = fit_adapter(logits, features, labels, groups=groups)
    changed = labels.copy()
    changed[~mask] = logits[~mask].argmin(axis=1)  # the other half has no say in the temperature
    assert fit_adapter(logits, features, changed, groups=groups).temperature == halved.temperature
    changed = labels.copy()
    changed[mask] = logits[mask].argmax(axis=1)
    assert fit_adapter(logits, features, changed, groups=groups).temperature < halved.temperature


def test_a_site_tells_the_levels_that_its_cells_vouch_for() -> None:
    found = np.sort(np.random.default_rng(0).uniform(0, 1, 120))
    assert [level for level, _ in told(found)] == [level for level in LEVELS if level <= 0.99]
    assert told(found)[-1][1] == conformal.quantile(found, 0.99)
    assert fit_adapter(*sample(120)).summary.quantiles[-1][0] == 0.99
