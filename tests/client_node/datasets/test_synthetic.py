"""Synthetic smears: the same seed draws the same pixels, sites differ, labels fit."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.synthetic import CLASSES, MARKER, make_synthetic
from shared.contracts.errors import DataInvalidError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    make_synthetic(out, fields_per_site=12, gallery_cells_per_site=48)
    return out


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_synthetic_same_seed_same_pixels(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_synthetic(tmp_path / name, sites=1, seed=seed, fields_per_site=12, gallery_cells_per_site=8)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def test_synthetic_is_marked_and_imports_without_a_skip(folder: Path, tmp_path: Path) -> None:
    assert (folder / MARKER).is_file()
    out = import_source(tmp_path, folder, "synthetic")
    assert out.skipped == ()
    assert set(out.classes) == set(CLASSES)
    assert {cell.site for cell in Catalogue(tmp_path).cells()} == {"synthetic-a", "synthetic-b", "synthetic-c"}


def test_synthetic_groups_never_straddle_splits(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    pairs = {(row["group"], row["split"]) for row in rows}
    assert len(pairs) == len({group for group, _ in pairs})
    for site in ("synthetic-a", "synthetic-b", "synthetic-c"):
        assert {row["split"] for row in rows if row["site"] == site} == {"train", "val", "test"}


def test_synthetic_sites_look_different(folder: Path) -> None:
    colours = []
    for site in "abc":
        with Image.open(folder / f"synthetic-{site}/fields/synthetic-{site}-p00/00.jpg") as opened:
            image = np.asarray(opened, np.float64)
        colours.append(np.median(image.reshape(-1, 3), axis=0))
    distances = [np.abs(colours[i] - colours[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 15


def test_synthetic_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make_synthetic(tmp_path, sites=9)
    (tmp_path / "labels.csv").write_text("path,class\na.png,neutrophil\n")
    with pytest.raises(DataInvalidError):
        import_source(tmp_path / "home", tmp_path, "synthetic")
