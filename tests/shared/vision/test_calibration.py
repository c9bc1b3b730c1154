"""Calibration on a site's own cells."""

import subprocess
import sys

import numpy as np
import pytest

from shared.contracts.training import CalibrationSummary
from shared.vision.calibration import Adapter, apply, default_adapter, fit_adapter
from shared.vision.conformal import LEVEL

RANDOM = np.random.default_rng


def sample(count: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits whose softmax at temperature ``sharpness`` is the truth, features and labels."""
    random = RANDOM(seed)
    logits = random.normal(0.0, 2.0, (count, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=row) for row in probabilities])
    features = random.normal(0.0, 1.0, (count, 40)) @ np.diag(np.linspace(3, 0.1, 40))
    return (logits * sharpness).astype(np.float32), features.astype(np.float32), labels


def test_fit_finds_the_temperature_of_an_overconfident_model() -> None:
    adapter = fit_adapter(*sample(3000, sharpness=3.0))
    assert adapter.temperature == pytest.approx(3.0, rel=0.1)


def test_sets_hold_the_truth_as_often_as_they_say() -> None:
    logits, features, labels = sample(4000, sharpness=2.0, seed=1)
    adapter = fit_adapter(logits[:2000], features[:2000], labels[:2000])
    result = apply(adapter, logits[2000:], features[2000:])
    covered = result.sets[np.arange(2000), labels[2000:]].mean()
    assert covered == pytest.approx(LEVEL, abs=0.02)
    assert result.sets.any(axis=1).all()
    assert result.sets[np.arange(2000), result.probabilities.argmax(axis=1)].all()
    assert np.allclose(result.probabilities.sum(axis=1), 1.0)


def test_ood_score_tells_strange_from_known() -> None:
    logits, features, labels = sample(600)
    adapter = fit_adapter(logits[:400], features[:400], labels[:400])
    known = apply(adapter, logits[400:], features[400:]).ood_scores
    strange = apply(adapter, logits[400:], features[400:] + np.float32(8.0)).ood_scores
    assert (known > 1.0).mean() < 0.05
    assert (strange > 1.0).all()


def test_fit_on_few_cells_takes_the_space_from_training_cells() -> None:
    logits, features, labels = sample(300)
    adapter = fit_adapter(logits[:5], features[:5], labels[:5], reference=features[5:])
    assert adapter.conformal_quantile >= Adapter().conformal_quantile
    assert adapter.promised == pytest.approx(5 / 6)
    assert 0.5 < adapter.temperature < 2.0
    assert (apply(adapter, logits, features).ood_scores > 1.0).mean() < 0.05


def test_fit_on_nothing_is_the_default() -> None:
    empty = np.zeros((0, 5), np.float32), np.zeros((0, 40), np.float32), np.zeros(0, np.int64)
    assert fit_adapter(*empty) == Adapter()


def test_default_adapter_falls_back_to_entropy() -> None:
    adapter = default_adapter(CalibrationSummary(temperature=2.0, conformal_quantile=0.8))
    logits = np.array([[9.0, 0, 0], [0, 0, 0]], np.float32)
    result = apply(adapter, logits, np.zeros((2, 40), np.float32))
    assert result.ood_scores[0] < 0.5
    assert result.ood_scores[1] > 1.0
    assert result.sets.tolist() == [[True, False, False], [True, True, True]]


def test_adapter_survives_json() -> None:
    adapter = fit_adapter(*sample(100))
    assert Adapter.model_validate_json(adapter.model_dump_json()) == adapter


def test_calibration_and_onnx_engine_need_no_torch() -> None:
    code = "import sys, shared.vision.calibration, shared.vision.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
