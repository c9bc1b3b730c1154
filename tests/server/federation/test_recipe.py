"""What a coordinator may choose of a recipe, and how a mistake is told."""

from pathlib import Path

import pytest

from server.federation.recipe import FIELDS, SMALL, Value, as_chosen, going_on, make_recipe, read_recipe
from server.federation.start import fits
from shared.contracts.errors import NotFoundError, UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Augmentation, Balance, Recipe

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)


def test_a_launch_sees_more_teaches_more_averages_weights_lowers_its_rates_and_teaches_the_head_first() -> None:
    recipe = make_recipe(CLASSES, {})
    usual = Recipe(classes=CLASSES)
    start = {"input_size": 144, "frozen_stages": 5, "ema": 0.99, "last_rate": 0.05, "head_epochs": 1}
    assert recipe == usual.model_copy(update=start)


def test_a_launch_freezes_what_its_backbone_says_unless_told() -> None:
    assert make_recipe(CLASSES, {"backbone": "resnet50"}).frozen_stages is None
    assert make_recipe(CLASSES, {"backbone": "tf_efficientnet_lite1"}).frozen_stages == 5
    assert make_recipe(CLASSES, {"frozen_stages": 6}).frozen_stages == 6
    assert make_recipe(CLASSES, {}, {"frozen_stages": None}).frozen_stages is None


OLDER = Recipe(classes=CLASSES, input_size=96, frozen_stages=None)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, (96, 6)),
        ({"ema": 0.5, "backbone": "tf_efficientnet_lite0"}, (96, 6)),
        ({"input_size": "96"}, (96, 6)),
        ({"frozen_stages": "6"}, (96, 6)),
        ({"input_size": 112}, (112, 5)),
        ({"frozen_stages": 4}, (144, 4)),
        ({"backbone": "tf_efficientnet_lite1"}, (144, 5)),
    ],
)
def test_a_run_goes_on_from_the_model_in_use_unless_its_coordinator_parts_from_it(
    chosen: dict[str, Value], expected: tuple[int, int]
) -> None:
    recipe = make_recipe(CLASSES, chosen, going_on(chosen, OLDER))
    assert (recipe.input_size, recipe.frozen_stages) == expected
    assert going_on(chosen, None) == {}


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (2, 0), (3, 1)])
def test_a_short_round_has_no_epoch_for_the_head_alone(epochs: int, expected: int) -> None:
    assert make_recipe(CLASSES, {"local_epochs": epochs}).head_epochs == expected
    assert make_recipe(CLASSES, {"local_epochs": epochs, "head_epochs": 1}).head_epochs == 1


def test_the_page_names_every_field_and_the_small_recipe() -> None:
    page = (Path(__file__).parents[3] / "docs" / "recipe.md").read_text()
    assert "".join(f"{name} = {value}\n" for name, value in SMALL.items()) in page
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(name.strip(" `") for cell in table for name in cell.split(",")) == sorted(FIELDS)


def test_every_field_may_be_chosen_by_numbers_or_as_a_form_sends_them() -> None:
    values: dict[str, Value] = {
        "backbone": "deit_tiny_patch16_224", "frozen_stages": 8, "local_epochs": 4, "batch_size": 16,
        "learning_rate": 3e-4, "head_learning_rate": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.1,
        "proximal_mu": 0.01, "input_size": 96, "views": 2, "augmentation": "strong", "balance": "logit", "ema": 0.0,
        "last_rate": 0.25, "head_epochs": 0, "patience": 2, "local_normalisation": True, "seed": 7,
    }  # fmt: skip
    assert set(values) == set(FIELDS)
    recipe = make_recipe(CLASSES, values)
    assert as_chosen(recipe) == values
    assert (recipe.classes, recipe.augmentation, recipe.balance) == (CLASSES, Augmentation.STRONG, Balance.LOGIT)
    assert make_recipe(CLASSES, {name: str(value) for name, value in values.items()}) == recipe


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"learning_rate": 3.0}, "learning_rate: Input should be less than or equal to 0.1"),
        ({"local_epochs": "many"}, "local_epochs: "),
        ({"balance": "fair"}, "balance: Input should be 'sampler', 'logit', 'focal' or 'none'"),
        ({"ema": 1, "views": 0}, "views: .*; at ema: "),
        ({"backbone": "resnet9000"}, "backbone: .*tf_efficientnet_lite0"),
        ({"backbone": "../x"}, "backbone: "),
        ({"frozen_stages": 8}, "frozen_stages: tf_efficientnet_lite0 has 7 stages"),
        ({"head_epochs": 6}, "head_epochs: a round has 5 local_epochs"),
        ({"momentum": 0.9}, "no momentum; it has: backbone, "),
        ({"classes": "neutrophil"}, "no classes; it has: backbone, "),
    ],
)
def test_a_mistake_is_told_by_its_field(chosen: dict[str, Value], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make_recipe(CLASSES, chosen)


def test_a_recipe_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('backbone = "resnet50"  # as the page says\nfrozen_stages = 2\nema = 0.9\n')
    assert read_recipe(file) == {"backbone": "resnet50", "frozen_stages": 2, "ema": 0.9}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ema = ", "recipe.toml cannot be read"),
        ("ema = true", "wrong at ema"),
        ("[recipe]\nema = 0.9", "wrong at recipe"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        read_recipe(tmp_path / "recipe.toml")
    with pytest.raises(NotFoundError, match="--recipe"):
        read_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, True),
        ({"ema": 0.5, "balance": "none", "seed": 3}, True),
        ({"frozen_stages": 5}, True),
        ({"frozen_stages": 6}, False),
        ({"input_size": 112}, False),
        ({"backbone": "tf_efficientnet_lite1"}, False),
    ],
)
def test_a_run_goes_on_from_the_model_in_use_where_its_tensors_fit(chosen: dict[str, Value], expected: bool) -> None:
    assert fits(make_recipe(CLASSES, {}), make_recipe(CLASSES, chosen)) is expected


def test_a_cut_as_the_backbone_has_it_is_that_cut() -> None:
    assert fits(Recipe(classes=CLASSES), Recipe(classes=CLASSES, frozen_stages=6))
    assert not fits(Recipe(classes=CLASSES), Recipe(classes=CLASSES, frozen_stages=5))
