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
from shared.vision.backbones import BackboneEntry

Value = str | int | float | None
Chosen = Mapping[str, Value]

FIELDS: Final = tuple(name for name in Recipe.model_fields if name != "classes")
"""What may be chosen, as the contract calls it; the classes come from the censuses."""
START: Final[Chosen] = MappingProxyType({"ema": 0.99, "input_size": 144, "last_rate": 0.05})
"""Where a launch differs from the contract's own defaults, with the backbone's `launch_stages`; see docs/recipe.md."""
SMALL: Final[Mapping[str, int]] = MappingProxyType({"input_size": 112, "frozen_stages": 6})
"""The small recipe of docs/recipe.md: for demonstrations, simulations, and what is compared with each other only."""
_SHAPE: Final = ("backbone", "input_size", "frozen_stages")
"""What, with the classes, makes one model's tensors fit another."""
HEAD_EPOCHS: Final = 1
LEAST_EPOCHS: Final = 3
"""With so many local epochs the head is given `HEAD_EPOCHS` of the first round for itself, unless chosen otherwise."""


def make_recipe(classes: Sequence[CellClass], chosen: Chosen, start: Chosen | None = None) -> Recipe:
    """Return the recipe of a run: ``chosen`` over ``start`` over what a launch starts from.

    Raises:
        UsageError: names each field that is unknown or wrong.
    """
    start = start or {}
    if unknown := sorted(set(chosen) - set(FIELDS)):
        raise UsageError(f"A recipe has no {' and no '.join(unknown)}; it has: {', '.join(FIELDS)}.")
    try:
        recipe = Recipe.model_validate({**START, **start, **chosen, "classes": tuple(classes)})
    except ValidationError as error:
        problems = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        raise UsageError(f"The recipe is wrong at {'; at '.join(problems)}.") from error
    entry = _entry(recipe.backbone)
    if "head_epochs" not in {**chosen, **start} and recipe.local_epochs >= LEAST_EPOCHS:
        recipe = recipe.model_copy(update={"head_epochs": HEAD_EPOCHS})
    if "frozen_stages" not in {**chosen, **start}:
        recipe = recipe.model_copy(update={"frozen_stages": entry.launch_stages})
    _check(recipe, entry)
    return recipe


def going_on(chosen: Chosen, in_use: Recipe | None) -> Chosen:
    """Return what a recipe starts from so that its run goes on from the model in use, unless ``chosen`` parts from it.

    The tensors of another backbone, input size or cut are others; a run of such starts from the pretrained weights.
    """
    if in_use is None:
        return {}
    used = {name: getattr(in_use, name) for name in _SHAPE}
    if used["frozen_stages"] is None:  # said by its number, as a coordinator would
        used["frozen_stages"] = backbones.get(in_use.backbone).trunk_blocks
    return {} if any(str(chosen.get(name, value)) != str(value) for name, value in used.items()) else used


def _entry(backbone: str) -> BackboneEntry:
    try:
        return backbones.get(backbone)
    except HematovisionError as error:
        raise UsageError(f"The recipe is wrong at backbone: {error.message}") from error


def _check(recipe: Recipe, entry: BackboneEntry) -> None:
    """Raise `UsageError` for what the contract alone cannot know."""
    if recipe.frozen_stages is not None and recipe.frozen_stages > entry.stages:
        raise UsageError(f"The recipe is wrong at frozen_stages: {recipe.backbone} has {entry.stages} stages.")
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
