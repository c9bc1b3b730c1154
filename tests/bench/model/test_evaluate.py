"""The bench's own figures, on numbers small enough to check by hand."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.ontology import CORE_FIVE, CellClass
from tests.bench.model.evaluate import Answers
from tests.bench.model.figures import balanced, classification, novelty
from tests.bench.model.folds import assigned
from tests.bench.model.rows import area, macro_f1, share
from tests.bench.model.stages import CLASSES


def answers(labels: list[int], said: list[int]) -> Answers:
    logits = np.zeros((len(labels), len(CLASSES)), np.float32)
    logits[np.arange(len(said)), said] = 5.0
    return Answers(logits, np.zeros((len(labels), 4), np.float32), np.array(labels, np.int64))


def test_area_counts_pairs_and_ties() -> None:
    assert area(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    assert area(np.array([0.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx((0.5 + 0.75) / 2)


def test_macro_f1_takes_the_classes_that_occur() -> None:
    truth, said = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    assert macro_f1(truth, said) == pytest.approx((1.0 + 2 / 3 + 0.0) / 3)


def test_five_classes_are_asked_among_the_five() -> None:
    found = answers([0, 1, 5, 3], [0, 5, 5, 2])  # the second cell's best of five is the first class, a tie
    rows = {str(row["measure"]): row for row in classification(found)}
    five = rows["PBC five classes, accuracy (asked among the five)"]
    assert (five["n"], five["holds"]) == (3, False)
    assert five["value"] == pytest.approx(1 / 3)
    assert rows["PBC eight classes, accuracy"]["value"] == 0.5


def test_balanced_accuracy_leaves_out_single_cells() -> None:
    row = balanced("x", answers([0, 0, 0, 0, 1, 1, 4], [0, 0, 0, 1, 1, 1, 0]), 0.5)
    assert row["value"] == pytest.approx((0.75 + 1.0) / 2)
    assert row["n"] == 6


def test_share_has_an_exact_interval() -> None:
    row = share("x", np.array([True] * 50 + [False] * 50), goal=0.6)
    assert (row["value"], row["holds"]) == (0.5, False)
    assert row["low"] == pytest.approx(0.398, abs=1e-3)


def test_novelty_tells_far_features_from_near_ones() -> None:
    random = np.random.default_rng(0)
    reference, validation, known = (random.normal(0, 1, (200, 8)).astype(np.float32) for _ in range(3))
    first = novelty(reference, validation, known, random.normal(3, 1, (100, 8)).astype(np.float32), "x")[0]
    assert isinstance(first["value"], float)
    assert first["value"] > 0.9
    same = novelty(reference, validation, known, random.normal(0, 1, (200, 8)).astype(np.float32), "x")[0]["value"]
    assert same == pytest.approx(0.5, abs=0.1)


def cell(number: int, group: str, cls: CellClass) -> LabelledCell:
    return LabelledCell(f"{number:064d}", Path("x.png"), None, cls, "s", group, Origin.IMPORT, "s", Split.TRAIN)


def test_folds_keep_groups_together_and_spread_classes() -> None:
    cells = [cell(2 * k + j, f"g{k}", CORE_FIVE[k % 2]) for k in range(20) for j in range(2)]
    fold = assigned(cells, 5)
    assert all(fold[2 * k] == fold[2 * k + 1] for k in range(20))
    for number in range(5):
        held = [one.cls for one, where in zip(cells, fold, strict=True) if where == number]
        assert Counter(held) == {CORE_FIVE[0]: 4, CORE_FIVE[1]: 4}
