"""A run's recipe in words."""

from collections.abc import Callable
from typing import Any, Final

from shared.contracts.training import Augmentation, Balance, Recipe

LOOKS: Final = {Augmentation.SUBTLE: "subtle", Augmentation.MILD: "mild", Augmentation.STRONG: "strong"}
RARE: Final = {
    Balance.SAMPLER: "drawn more often",
    Balance.LOGIT: "weighed in the loss",
    Balance.FOCAL: "focal loss",
    Balance.NONE: "as they come",
}


def recipe_summary(recipe: Recipe) -> str:
    """``tf_efficientnet_lite0, mild looks, rare classes drawn more often``."""
    summary = f"{recipe.backbone}, {LOOKS[recipe.augmentation]} looks, rare classes {RARE[recipe.balance]}"
    return f"{summary}, own normalisation" if recipe.local_normalisation else summary


def recipe_lines(recipe: Recipe) -> list[tuple[str, str]]:
    """Return every field but the classes as a term and its value."""
    return [
        ("Backbone", recipe.backbone),
        ("Frozen stages", _stages(recipe.frozen_stages)),
        ("Input", f"{recipe.input_size} px"),
        (
            "Head alone at first",
            f"{recipe.head_epochs} of {recipe.local_epochs} passes" if recipe.head_epochs else "no",
        ),
        ("Stops early", f"after {recipe.patience} passes without gain" if recipe.patience else "no"),
        ("Cells a step", str(recipe.batch_size)),
        ("Learning rate", f"{recipe.learning_rate:g}, head {recipe.head_learning_rate:g}"),
        ("Rates in the last round", f"{recipe.last_rate:.0%} of these" if recipe.last_rate < 1 else "the same"),
        ("Weight decay", f"{recipe.weight_decay:g}"),
        ("Label smoothing", f"{recipe.label_smoothing:g}"),
        ("Moving average", f"{recipe.ema:g}" if recipe.ema else "off"),
        ("Looks at a cell", f"{LOOKS[recipe.augmentation]}, {recipe.views} kept"),
        ("Rare classes", RARE[recipe.balance]),
        ("Held to the start", f"by {recipe.proximal_mu:g}" if recipe.proximal_mu else "no"),
        ("Normalisation", "each hospital's own" if recipe.local_normalisation else "shared"),
        ("Seed", str(recipe.seed)),
    ]


def _stages(frozen: int | None) -> str:
    if frozen is None:
        return "as the backbone has it"
    return str(frozen) if frozen else "none, all learn"


FILTERS: Final[dict[str, Callable[..., Any]]] = {  # Any: as in `portal.words`
    "recipe_summary": recipe_summary,
    "recipe_lines": recipe_lines,
    "looks": LOOKS.__getitem__,
    "rare": RARE.__getitem__,
}
