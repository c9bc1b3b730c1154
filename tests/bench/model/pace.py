"""What trainings take on 2 cores without a GPU, about: measured on an AMD EPYC, 32 images of 144 px a step."""

from typing import Final

from client_node.training.loop import STEPS_AN_EPOCH
from shared.contracts.training import Recipe
from tests.bench.model.stages import MOST_IMAGES, Stage

STEP: Final = 0.85
"""Seconds a step in which every layer learns."""
_SLOWER: Final = {"tf_efficientnet_lite1": 1.5, "tf_efficientnet_lite2": 1.9}
_FINDER: Final = 60.0
_TOLD: Final = 20.0
SMALL: Final = 200
"""Training cells of the smaller source, about."""


def steps_of(recipe: Recipe, images: int) -> int:
    """Return the steps of a training."""
    return recipe.local_epochs * max(STEPS_AN_EPOCH, -(-images // recipe.batch_size))


def training_seconds(stage: Stage) -> float:
    """Return what the training of a stage takes, its finder and card too."""
    images = MOST_IMAGES if "pbc" in stage.sources else SMALL
    finder = _FINDER if "bccd" in stage.sources else 0.0
    return steps_of(stage.recipe, images) * STEP * _SLOWER.get(stage.recipe.backbone, 1.0) + finder + _TOLD


def fold_seconds(recipe: Recipe, *, folds: int, images: int) -> float:
    """Return what the trainings of ``folds`` folds take, each with ``images`` images."""
    return folds * steps_of(recipe, images) * STEP
