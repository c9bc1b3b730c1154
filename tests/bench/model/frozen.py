"""The product's default recipe on any cells, cut in any way: cached looks of a frozen trunk, the last stage learns.

Cheap (seconds to a minute a training), and the path that hospitals really run: what is compared by many trainings is
compared here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell
from client_node.training import augment
from client_node.training.cache import FeatureCache, Maps
from client_node.training.loop import train
from client_node.training.sources import MapSource
from shared.contracts.training import Recipe
from shared.vision import backbones, preprocessing
from shared.vision.model import CellModel, build
from shared.vision.trunk import Trunk
from shared.vision.weights import base_sha256
from tests.bench.model.stages import CLASSES, positions

Balanced = Callable[[preprocessing.Pixels, NDArray[np.float64]], preprocessing.Pixels]
"""What happens to a cut cell, given its image's white point: in the product, white balance."""
SEEDS: Final = (1, 2, 3)


def as_cut(crop: preprocessing.Pixels, white: NDArray[np.float64]) -> preprocessing.Pixels:
    """Leave the cell as the camera saw it."""
    return crop


@contextmanager
def cut_by(balanced: Balanced | None) -> Iterator[None]:
    """Cut all cells so, in training and in analysis; None: as the product does."""
    kept = preprocessing.balanced
    preprocessing.balanced = balanced or kept  # type: ignore[assignment]  # argument names differ
    try:
        yield
    finally:
        preprocessing.balanced = kept


class Frozen:
    """Trains by a recipe with a frozen trunk; the maps of the cells' looks lie below ``folder``."""

    def __init__(self, folder: Path, recipe: Recipe, *, most_views: int) -> None:
        """``most_views``: of so many cached looks a training takes the first ones."""
        self._folder = folder
        self._recipe = recipe
        self._most = most_views
        self._model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
        self._trunk: Trunk | None = None

    @property
    def folder(self) -> Path:
        """Where the maps lie."""
        return self._folder

    def maps(self, cells: Sequence[LabelledCell]) -> tuple[list[LabelledCell], Maps]:
        """Return the cells that could be read, and the maps of their looks."""
        recipe = self._recipe
        cache = FeatureCache(
            self._folder / sha256(preprocessing.balanced.__qualname__.encode()).hexdigest()[:8], self._model,
            base_sha256=base_sha256(backbones.get(recipe.backbone)), size=recipe.input_size,
            strength=augment.STRENGTHS[recipe.augmentation], trunk=self._made,
        )  # fmt: skip
        return cache.load(cells, self._most, between=lambda: None)

    def _made(self) -> Trunk:
        if self._trunk is None:
            self._trunk = Trunk(self._model, self._recipe.input_size)
        return self._trunk

    def trained(
        self, cells: Sequence[LabelledCell], *, seed: int = 1, start: CellModel | None = None, **changed: object
    ) -> CellModel:
        """Return a model that learnt from ``cells`` by the recipe with some fields ``changed``.

        ``start`` learns on, in place; else a fresh model does.
        """
        recipe = self._recipe.model_copy(update=changed)
        kept, maps = self.maps(cells)
        model = start or build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
        source = MapSource(maps[:, : recipe.views])
        train(model, source, positions(kept), recipe, seed=seed, between=lambda: None)
        return model
