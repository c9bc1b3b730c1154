"""What training keeps of every cell on disk."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from client_node.datasets.catalogue import Catalogue, LabelledCell
from client_node.training.augment import STRENGTHS
from client_node.training.cache import FeatureCache
from shared.contracts.training import Augmentation
from shared.vision import backbones
from shared.vision.model import CellModel, build
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


def feature_cache(folder: Path, model: CellModel, *, size: int = SIZE, base: str = "0" * 64) -> FeatureCache:
    return FeatureCache(
        folder,
        model,
        base_sha256=base,
        size=size,
        strength=STRENGTHS[Augmentation.MILD],
        trunk=lambda: Trunk(model, size),
    )


def folders(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_another_cut_of_equal_shape_has_maps_of_its_own(cells: list[LabelledCell], vit: str, tmp_path: Path) -> None:
    maps = []
    for frozen in (1, 2):
        cache = feature_cache(tmp_path / "cache", build(vit, len(CLASSES), frozen_stages=frozen))
        maps.append(cache.load(cells, 1, between=lambda: None)[1])
    assert len(folders(tmp_path / "cache")) == 2
    assert maps[0].shape == maps[1].shape
    assert not np.array_equal(maps[0], maps[1])
