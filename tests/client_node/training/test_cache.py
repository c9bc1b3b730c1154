"""What training keeps of every cell on disk."""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from client_node.training.augment import STRENGTHS, SURROUND
from client_node.training.cache import CropCache, FeatureCache
from shared.contracts.training import Augmentation
from shared.vision import backbones
from shared.vision.images import load_image
from shared.vision.model import CellModel, build
from shared.vision.preprocessing import cell_crop, to_input
from shared.vision.trunk import Trunk
from shared.vision.weights import FOLDER_VARIABLE, add_weights, import_timm
from tests.client_node.training.site import CLASSES, make_home

SIZE = 64
VIT = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledCell]:
    home = make_home(tmp_path_factory.mktemp("cells") / "home", train=1, val=0, test=0)
    return Catalogue(home).cells()


@pytest.fixture
def vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vision transformer with random weights: no package holds any."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    file = tmp_path / "vit.safetensors"
    save_file(import_timm().create_model(VIT, pretrained=False).state_dict(), file)
    add_weights(backbones.get(VIT), file, sha256(file.read_bytes()).hexdigest())
    return VIT


@cache
def trunk_of(model: CellModel, size: int) -> Trunk:
    return Trunk(model, size)


def feature_cache(
    folder: Path,
    model: CellModel,
    *,
    size: int = SIZE,
    base: str = "0" * 64,
    strength: Augmentation = Augmentation.MILD,
) -> FeatureCache:
    return FeatureCache(
        folder,
        model,
        base_sha256=base,
        size=size,
        strength=STRENGTHS[strength],
        trunk=lambda: trunk_of(model, size),
    )


def folders(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def stored(folder: Path, cell: LabelledCell) -> Path:
    (file,) = folder.rglob(f"{cell.hash}.npy")
    return file


@pytest.fixture(scope="module")
def lite() -> CellModel:
    return build("tf_efficientnet_lite0", len(CLASSES))


def test_every_view_lies_in_the_cells_file_and_differs_from_the_others(
    cells: list[LabelledCell], lite: CellModel, tmp_path: Path
) -> None:
    kept, maps = feature_cache(tmp_path, lite).load(cells, 4, between=lambda: None)
    assert kept == cells
    assert (maps.shape[:2], maps.dtype.name) == ((len(cells), 4), "float16")
    for cell, expected in zip(cells, maps, strict=True):
        views = np.load(stored(tmp_path, cell))
        np.testing.assert_array_equal(views, expected)
        far = [np.abs(a.astype(np.float32) - b).mean() for n, a in enumerate(views) for b in views[:n]]
        assert min(far) > 0.05 * np.abs(views.astype(np.float32)).mean()


def test_the_first_view_is_what_analysis_sees(cells: list[LabelledCell], lite: CellModel, tmp_path: Path) -> None:
    _, maps = feature_cache(tmp_path, lite).load(cells, 2, between=lambda: None)
    crops = [cell_crop(load_image(cell.path), cell.box) for cell in cells]
    seen = np.stack([to_input(crop, SIZE, lite.entry.mean, lite.entry.std) for crop in crops])
    with torch.inference_mode():
        expected = lite.trunk(torch.from_numpy(seen)).numpy()
    assert np.abs(maps[:, 0].astype(np.float32) - expected).max() < 5e-3 * np.abs(expected).max()


def test_fewer_views_are_taken_from_the_file_and_more_are_computed_and_begin_alike(
    cells: list[LabelledCell], lite: CellModel, tmp_path: Path
) -> None:
    calls: list[int] = []
    cache = feature_cache(tmp_path, lite)
    two = cache.load(cells, 2, between=lambda: calls.append(2))[1].copy()
    times = [stored(tmp_path, cell).stat().st_mtime_ns for cell in cells]
    one = cache.load(cells, 1, between=lambda: calls.append(1))[1]
    np.testing.assert_array_equal(one, two[:, :1])
    assert [stored(tmp_path, cell).stat().st_mtime_ns for cell in cells] == times
    three = cache.load(cells, 3, between=lambda: calls.append(3))[1]
    np.testing.assert_array_equal(three[:, :2], two)
    assert [len(np.load(stored(tmp_path, cell))) for cell in cells] == [3] * len(cells)
    assert calls == [2] * len(cells) + [3] * len(cells)  # called only where there is something to compute


@pytest.mark.parametrize("damage", ["cut", "noise", "other shape", "other type", "pickled"])
def test_a_damaged_file_is_computed_again(
    cells: list[LabelledCell], lite: CellModel, tmp_path: Path, damage: str
) -> None:
    cache = feature_cache(tmp_path, lite)
    before = cache.load(cells[:1], 2, between=lambda: None)[1].copy()
    file = stored(tmp_path, cells[0])
    arrays = np.load(file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "noise":
        file.write_bytes(b"noise")
    elif damage == "pickled":
        np.save(file, np.array([None]), allow_pickle=True)
    else:
        np.save(file, arrays[:, :-1] if damage == "other shape" else arrays.astype(np.float32))
    np.testing.assert_array_equal(cache.load(cells[:1], 2, between=lambda: None)[1], before)
    np.testing.assert_array_equal(np.load(file), arrays)


def test_whatever_the_maps_depend_on_has_a_folder_of_its_own(lite: CellModel, tmp_path: Path) -> None:
    deeper = build("tf_efficientnet_lite0", len(CLASSES), frozen_stages=3)
    caches = [
        feature_cache(tmp_path, lite),
        feature_cache(tmp_path, deeper),
        feature_cache(tmp_path, lite, size=96),
        feature_cache(tmp_path, lite, base="1" * 64),
        feature_cache(tmp_path, lite, strength=Augmentation.STRONG),
    ]
    assert len({cache.folder for cache in caches}) == len(caches)
    assert feature_cache(tmp_path, lite).folder == caches[0].folder


def test_only_the_newest_folders_are_kept(cells: list[LabelledCell], lite: CellModel, tmp_path: Path) -> None:
    for number in range(3):
        feature_cache(tmp_path, lite, base=str(number) * 64).load(cells[:1], 1, between=lambda: None)
        for age, folder in enumerate(sorted(tmp_path.iterdir(), key=lambda one: one.stat().st_mtime_ns)):
            os.utime(folder, (1000.0 * number + age, 1000.0 * number + age))
    newest = {feature_cache(tmp_path, lite, base=str(number) * 64).folder.name for number in (1, 2)}
    assert folders(tmp_path) == newest


def test_crops_are_kept_wide_enough_to_be_turned(cells: list[LabelledCell], tmp_path: Path) -> None:
    cache = CropCache(tmp_path, size=SIZE)
    kept, crops = cache.load(cells, between=lambda: None)
    side = round(SIZE * SURROUND)
    assert (kept, crops.shape, crops.dtype.name) == (cells, (len(cells), side, side, 3), "uint8")
    again = cache.load(cells, between=lambda: pytest.fail("computed again"))[1]
    np.testing.assert_array_equal(again, crops)


def test_another_cut_of_equal_shape_has_maps_of_its_own(cells: list[LabelledCell], vit: str, tmp_path: Path) -> None:
    maps = []
    for frozen in (1, 2):
        cache = feature_cache(tmp_path / "cache", build(vit, len(CLASSES), frozen_stages=frozen))
        maps.append(cache.load(cells, 1, between=lambda: None)[1])
    assert len(folders(tmp_path / "cache")) == 2
    assert maps[0].shape == maps[1].shape
    assert not np.array_equal(maps[0], maps[1])
