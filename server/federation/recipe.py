"""The recipe of a run: what a coordinator has chosen over what a launch starts from; mistakes are named by field."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from shared.contracts.errors import HematovisionError, NotFoundError, UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision import backbones

Value = str | int | float | None
Chosen = Mapping[str, Value]

FIELDS: Final = tuple(name for name in Recipe.model_fields if name != "classes")
"""What may be chosen, as the contract calls it; the classes come from the censuses."""
START: Final[Chosen] = MappingProxyType({"ema": 0.99, "last_rate": 0.05})
"""Where a launch differs from the contract's own defaults; see docs/recipe.md."""
HEAD_EPOCHS: Final = 1
LEAST_EPOCHS: Final = 3
"""With so many local epochs the head is given `HEAD_EPOCHS` of the first round for itself, unless chosen otherwise."""


def make_recipe(classes: Sequence[CellClass], chosen: Chosen, start: Chosen | None = None) -> Recipe:
    """Return the recipe of a run: ``chosen`` over ``start`` over what a launch starts from.

    Raises:
        UsageError: names each field that is unknown or wrong.
    """
    if unknown := sorted(set(chosen) - set(FIELDS)):
        raise UsageError(f"A recipe has no {' and no '.join(unknown)}; it has: {', '.join(FIELDS)}.")
    try:
        recipe = Recipe.model_validate({**START, **(start or {}), **chosen, "classes": tuple(classes)})
    except ValidationError as error:
        problems = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        raise UsageError(f"The recipe is wrong at {'; at '.join(problems)}.") from error
    if "head_epochs" not in {**chosen, **(start or {})} and recipe.local_epochs >= LEAST_EPOCHS:
        recipe = recipe.model_copy(update={"head_epochs": HEAD_EPOCHS})
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Raise `UsageError` for what the contract alone cannot know."""
    try:
        stages = backbones.get(recipe.backbone).stages
    except HematovisionError as error:
        raise UsageError(f"The recipe is wrong at backbone: {error.message}") from error
    if recipe.frozen_stages is not None and recipe.frozen_stages > stages:
        raise UsageError(f"The recipe is wrong at frozen_stages: {recipe.backbone} has {stages} stages.")
    if recipe.head_epochs > recipe.local_epochs:
        raise UsageError(f"The recipe is wrong at head_epochs: a round has {recipe.local_epochs} local_epochs.")


def read_recipe(file: Path) -> dict[str, Value]:
    """Return what a TOML file chooses: ``name = value`` a line, the names of `FIELDS`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no TOML, or a value is not of the kind that its field has.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no {file}: check the path of --recipe.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file.name} cannot be read as TOML: {error}.") from error
    for name, value in table.items():
        switch = name in Recipe.model_fields and Recipe.model_fields[name].annotation is bool
        if isinstance(value, bool) is not switch or not isinstance(value, str | int | float):
            raise UsageError(
                f"{file.name} is wrong at {name}: give {'true or false' if switch else 'a number or a text'}."
            )
    return table


def as_chosen(recipe: Recipe) -> dict[str, Value]:
    """Return a recipe without its classes, for people and records."""
    values: dict[str, Value] = recipe.model_dump(mode="json", exclude={"classes"})
    return values
