"""Figures of a model on a site's cells."""

import numpy as np
import pytest

from client_node.training.evaluation import site_metrics
from shared.contracts.ontology import CellClass

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE)


def test_site_metrics_match_a_hand_count() -> None:
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32))
    metrics = site_metrics(logits, np.array([0, 1, 1, 1]), CLASSES)
    assert metrics.n == 4
    assert metrics.accuracy == 0.75
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.recall == {CellClass.NEUTROPHIL: 1.0, CellClass.LYMPHOCYTE: pytest.approx(2 / 3)}
    assert metrics.support == {CellClass.NEUTROPHIL: 1, CellClass.LYMPHOCYTE: 3}
    assert metrics.loss == pytest.approx(-np.log([0.8, 0.7, 0.3, 0.8]).mean(), abs=1e-6)


def test_site_metrics_of_no_cells_are_zero() -> None:
    metrics = site_metrics(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), CLASSES)
    assert (metrics.n, metrics.accuracy, metrics.recall) == (0, 0.0, {})
