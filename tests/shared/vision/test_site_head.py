"""A site's own head: found from few cells, kept only where it helps, silent on classes that the site never labelled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.vision.site_head import SiteHead, _Problem, chosen_head, fit

FEATURES, CLASSES = 24, 4


def world(count: int, *, moved: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (logits, features, labels) of cells whose shared head cuts ``moved`` beside their classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(0, 2, (CLASSES, FEATURES))
    labels = random.integers(0, CLASSES, count)
    features = (centres[labels] + random.normal(0, 1, (count, FEATURES))).astype(np.float32)
    aside = np.random.default_rng(8).normal(0, 1, FEATURES) * moved
    logits = ((features + aside) @ centres.T / 4 - (centres**2).sum(axis=1) / 8).astype(np.float32)
    return logits, features, labels


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def test_head_of_a_site_that_the_shared_one_misreads_reads_new_cells() -> None:
    head = chosen_head(*world(60, moved=12.0))
    assert head is not None
    logits, features, labels = world(400, moved=12.0, seed=1)
    assert accuracy(logits, labels) < 0.6
    assert accuracy(head.applied(logits, features), labels) > 0.95


def test_shared_head_stays_where_it_reads_well() -> None:
    logits, features, labels = world(60, moved=0.0)
    assert accuracy(logits, labels) == 1.0
    assert chosen_head(4 * logits, features, labels) is None


def test_labels_of_chance_give_no_head() -> None:
    logits, features, labels = world(80, moved=0.0)
    assert chosen_head(logits * 0, features, np.random.default_rng(3).permutation(labels)) is None


def test_too_few_cells_or_one_class_or_one_group_give_no_head() -> None:
    logits, features, labels = world(60, moved=12.0)
    assert chosen_head(logits[:19], features[:19], labels[:19]) is None
    assert chosen_head(logits, features, labels * 0) is None
    assert chosen_head(logits, features, labels, groups=["one"] * 60) is None


def test_what_is_said_of_classes_the_site_never_labelled_stays() -> None:
    logits, features, labels = world(80, moved=12.0)
    seen = labels != 3
    head = fit(logits[seen], features[seen], labels[seen], pull=0.1)
    again = head.applied(logits, features)
    np.testing.assert_allclose(again[:, 3], head.scale * logits[:, 3], rtol=1e-5)
    # Among the classes that were labelled nothing moves as a whole, so that the absent one is not crowded out.
    np.testing.assert_allclose(
        again[:, :3].sum(axis=1), head.scale * logits[:, :3].sum(axis=1), atol=0.05 * np.abs(logits).max()
    )


def test_gradient_is_that_of_the_loss() -> None:
    logits, features, labels = world(30, moved=1.0)
    problem = _Problem(features.astype(np.float64) / 10, logits.astype(np.float64), labels, 0.3)
    vector = np.random.default_rng(5).normal(0, 0.3, len(problem.start))
    _, slope = problem(vector)
    for place in (0, 1, 40, len(vector) - 1):
        step = np.zeros(len(vector))
        step[place] = 1e-5
        measured = (problem(vector + step)[0] - problem(vector - step)[0]) / 2e-5
        assert slope[place] == pytest.approx(measured, rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(20, 60), classes=st.integers(2, 6))
def test_any_cells_give_finite_logits(seed: int, count: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(0, 10.0 ** random.integers(-3, 4), (count, 8)).astype(np.float32)
    features[:, 0] = 1.0
    logits = random.normal(0, 5, (count, classes)).astype(np.float32)
    head = fit(logits, features, random.integers(0, classes, count), pull=0.1)
    assert np.isfinite(head.applied(logits, features)).all()


def test_head_survives_its_file_and_refuses_damage_and_another_model() -> None:
    logits, features, labels = world(40, moved=2.0)
    head = fit(logits, features, labels, pull=0.1)
    again = SiteHead.model_validate_json(head.model_dump_json())
    np.testing.assert_array_equal(again.applied(logits, features), head.applied(logits, features))
    with pytest.raises(ValueError, match="does not fit"):
        head.applied(logits[:, :3], features)
    with pytest.raises(ValidationError):
        SiteHead.model_validate({**head.model_dump(), "numbers": head.numbers[:-8]})
