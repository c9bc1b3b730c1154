"""Evaluation over a label file, with figures worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.evaluation import class_table, evaluate_csv, expected_calibration_error
from shared.contracts.errors import NoLabelsError, UsageError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, install_model, make_model
from tests.client_node.datasets.factories import put_labels

N, L, E, BAND = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL, CellClass.BAND_NEUTROPHIL


def _data(folder: Path, *pairs: tuple[str, CellClass]) -> Path:
    """Images that look like the second of each pair, labelled as the first."""
    rows: list[dict[str, object]] = []
    for number, (label, looks) in enumerate(pairs):
        save(folder / f"{number}.png", cell_image(looks, number))
        rows.append({"path": f"{number}.png", "kind": "cell", "class": label})
    rows.append({"path": "0.png", "kind": "field"})
    rows.append({"path": "0.png", "kind": "cell", "class": ""})
    rows.append({"path": "absent.png", "kind": "cell", "class": "neutrophil"})
    rows.append({"path": "0.png", "kind": "cell", "class": "griffin"})
    return put_labels(folder, rows)


def test_evaluate_counts_exactly_the_labelled_cells(tmp_path: Path) -> None:
    install_model(tmp_path / "home")
    labels = _data(tmp_path / "data", ("neutrophil", N), ("band", N), ("lymphocyte", N), ("eosinophil", E))
    out = evaluate_csv(tmp_path / "home", tmp_path / "data", labels)
    assert (out.n, out.accuracy) == (4, 0.75)
    assert out.confusion == {N: {N: 2}, L: {N: 1}, E: {E: 1}}
    assert out.per_class[N].precision == pytest.approx(2 / 3)
    assert (out.per_class[L].recall, out.per_class[L].support) == (0.0, 1)
    assert out.macro_f1 == pytest.approx((0.8 + 0 + 1) / 3)
    assert len(out.skipped) == 4
    assert (out.model_version, out.engine) == ("test-1", "onnxruntime")
    assert 1 <= out.mean_set_size <= 4


def test_evaluate_a_class_the_model_lacks_counts_as_wrong(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    labels = _data(tmp_path / "data", ("neutrophil", N), ("platelet", N))
    out = evaluate_csv(None, tmp_path / "data", labels, model_dir=folder)
    assert (out.n, out.accuracy) == (2, 0.5)
    assert out.per_class[CellClass.PLATELET].recall == 0.0


def test_evaluate_without_usable_rows_says_so(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    labels = put_labels(tmp_path, [{"path": "a.png", "kind": "field"}])
    with pytest.raises(NoLabelsError):
        evaluate_csv(None, tmp_path, labels, model_dir=folder)
    with pytest.raises(UsageError):
        evaluate_csv(None, tmp_path, labels)


def test_class_table_of_a_perfect_model_is_one() -> None:
    table = class_table({N: {N: 3}, L: {L: 1}})
    assert {cls: row.f1 for cls, row in table.items()} == {N: 1.0, L: 1.0}


def test_calibration_error_is_the_weighted_gap() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.05)
    assert expected_calibration_error(np.array([1.0]), np.array([True])) == 0.0
