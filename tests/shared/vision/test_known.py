"""What laboratories look like to a model, told small and without any cell of theirs."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from shared.contracts.laboratory import MOST_FEATURES, KnownLaboratory, KnownSpace
from shared.contracts.training import (
    CalibrationSummary,
    EvaluateReply,
    SiteMetrics,
)
from shared.vision.calibration import Adapter, FeatureSpace, apply, fit_adapter
from shared.vision.known import LEAST_TOLD, Known, known, known_of, known_space, space_of

Features = NDArray[np.float32]
NO_LOGITS = np.zeros((200, 3), np.float32)


def laboratory(where: float, count: int, *, seed: int, size: int = 160) -> Features:
    """Features of cells that differ in forty directions, those of a laboratory shifted together."""
    directions = np.random.default_rng(1).normal(0.0, 1.0, (40, size))
    shift = np.random.default_rng(round(where * 10)).normal(0.0, 1.0, size)
    random = np.random.default_rng(seed)
    cells = where * shift + random.normal(0.0, 1.0, (count, 40)) @ directions
    return (cells + random.normal(0.0, 0.3, (count, size))).astype(np.float32)


@pytest.fixture(scope="module")
def two() -> Known:
    found = known_of(known_space(laboratory(at, 600, seed=2), laboratory(at, 200, seed=3)) for at in (4.0, 9.0))
    assert found is not None
    return found


@pytest.mark.parametrize("at", [4.0, 9.0])
def test_cells_of_any_known_laboratory_are_known(two: Known, at: float) -> None:
    scores = two.scores(laboratory(at, 200, seed=5))
    assert (scores > 1.0).mean() < 0.05
    assert 0.5 < np.median(scores) < 1.0


def test_cells_of_another_laboratory_are_strange(two: Known) -> None:
    assert (two.scores(laboratory(6.0, 200, seed=5)) > 1.0).all()


def test_features_that_are_short_rather_than_far_off_are_strange() -> None:
    """So a trained network answers images that are none of its classes: near the middle, with the usual residual."""

    def cells(count: int, seed: int, length: float) -> Features:
        centres = np.random.default_rng(0).normal(0.0, 1.0, (6, 160))
        centres -= centres.mean(axis=0)
        random = np.random.default_rng(seed)
        noise = random.normal(0.0, 0.3, (count, 160))
        return np.asarray(length * centres[random.integers(0, 6, count)] + noise, np.float32)

    made = known_of([known_space(cells(600, 1, 1.0), cells(200, 2, 1.0))])
    assert made is not None
    assert (made.scores(cells(200, 3, 1.0)) > 1.0).mean() < 0.03
    assert (made.scores(cells(200, 4, 0.1)) > 1.0).all()
    ((space, limit),) = made.spaces
    along, left, _ = space.parts(cells(200, 4, 0.1))
    assert max(along.max(), left.max()) < limit  # neither of the other signs tells them


def test_a_space_of_an_older_release_keeps_its_measure() -> None:
    cells = laboratory(4.0, 600, seed=2)
    fitted = fit_adapter(np.zeros((600, 3), np.float32), cells, np.zeros(600, np.int64)).space
    assert fitted is not None
    old = FeatureSpace.model_validate({**fitted.model_dump(), "share": None}).space
    along, left, _ = fitted.space.parts(cells)
    assert np.allclose(old.distances(cells), np.sqrt((along**2 + left**2) / 2))


def test_what_is_told_has_the_rounding_of_fp16_in_it_and_keeps_its_distances() -> None:
    cells = laboratory(4.0, 600, seed=2)
    told = KnownSpace.model_validate_json(known_space(cells).model_dump_json())
    space = space_of(told)
    assert space.components.shape == (32, 160)
    assert np.allclose(space.components @ space.components.T, np.eye(32), atol=1e-9)
    assert np.allclose(space.mean, cells.mean(axis=0), rtol=1e-3, atol=1e-3)
    assert (space.distances(laboratory(4.0, 200, seed=5)) / told.threshold > 1.0).mean() < 0.05


def test_a_space_without_held_out_cells_has_a_threshold_of_cells_it_was_not_fitted_on() -> None:
    few = known_space(laboratory(4.0, LEAST_TOLD, seed=2))
    made = known_of([few])
    assert made is not None
    assert len(few.deviations) == LEAST_TOLD // 10
    assert (made.scores(laboratory(4.0, 200, seed=5)) > 1.0).mean() < 0.2


def test_a_site_without_anything_of_its_own_scores_by_the_known_laboratories(two: Known) -> None:
    strange, usual = laboratory(6.0, 200, seed=5), laboratory(9.0, 200, seed=5)
    assert (apply(Adapter(), NO_LOGITS, strange, two).ood_scores > 1.0).all()
    assert (apply(Adapter(), NO_LOGITS, usual, two).ood_scores > 1.0).mean() < 0.05
    entropy = apply(Adapter(), NO_LOGITS, usual).ood_scores  # an old model carries none
    assert entropy == pytest.approx(1 / 0.6)


def test_the_largest_answer_stays_below_what_the_centre_takes() -> None:
    features = np.random.default_rng(0).normal(0, 1, (400, MOST_FEATURES)).astype(np.float32)
    found = SiteMetrics(n=9, loss=0.1, accuracy=0.9, macro_f1=0.9)
    reply = EvaluateReply(
        candidate=found,
        current=found,
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
        laboratory=KnownLaboratory(space=known_space(features)),
        seconds=1.0,
    )
    assert 150_000 < len(reply.model_dump_json(by_alias=True)) < 200_000


def test_no_laboratory_is_told_of_by_a_few_cells_or_by_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        known_space(laboratory(4.0, LEAST_TOLD - 1, seed=2))
    with pytest.raises(ValueError, match="too large"):
        known_space(laboratory(4.0, 100, seed=2) * np.float32(1e6))
    with pytest.raises(ValueError, match="at most"):
        known_space(np.zeros((LEAST_TOLD, MOST_FEATURES + 1), np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": "AAAA"},
        {"numbers": "!" * 8},
        {"residual": float("nan")},
        {"threshold": 1e9},
        {"share": 1.5},
        {"deviations": []},
        {"size": 9999},
        {"name": "hospital-a"},
    ],
)
def test_a_hostile_space_is_refused(change: dict[str, object]) -> None:
    good = json.loads(known_space(laboratory(4.0, 100, seed=2)).model_dump_json())
    with pytest.raises(ValidationError):
        KnownSpace.model_validate({**good, **change})


def test_numbers_that_are_not_finite_are_refused() -> None:
    good = known_space(laboratory(4.0, 100, seed=2, size=3))
    bad = good.model_copy(update={"numbers": "AH4A" * (len(good.numbers) // 4)})  # 0x7e00 is not a number
    with pytest.raises(ValueError, match="not finite"):
        known([KnownLaboratory(space=bad)])
    assert known([KnownLaboratory()]) is None


def site(cells: Features, *, right: float) -> Adapter:
    """A site's adapter on such cells, of which the model reads a share rightly."""
    labels = np.zeros(len(cells), np.int64)
    logits = np.zeros((len(cells), 3), np.float32)
    logits[:, 0], logits[round(right * len(cells)) :, 1] = 4.0, 8.0
    return fit_adapter(logits, cells, labels)


@pytest.mark.parametrize(("right", "known_here"), [(0.95, True), (0.45, False)])
def test_an_unlearnt_stain_is_known_at_a_site_only_where_the_model_reads_it(
    two: Known, right: float, known_here: bool
) -> None:
    adapter = site(laboratory(6.0, 200, seed=7), right=right)
    assert adapter.vouched is known_here
    scores = apply(adapter, NO_LOGITS, laboratory(6.0, 200, seed=5), two).ood_scores
    assert (scores > 1.0).mean() < 0.1 if known_here else (scores > 1.0).all()


@pytest.mark.parametrize("right", [0.95, 0.45])
def test_what_another_laboratory_would_know_is_still_strange_here(two: Known, right: float) -> None:
    adapter = site(laboratory(9.0, 200, seed=7), right=right)
    assert (apply(adapter, NO_LOGITS, laboratory(9.0, 200, seed=5), two).ood_scores > 1.0).mean() < 0.1
    assert (apply(adapter, NO_LOGITS, laboratory(4.0, 200, seed=5), two).ood_scores > 1.0).all()
