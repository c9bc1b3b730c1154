"""The scale and shift of a model's channels: what a site may keep of its own (FedBN; Li et al. 2021).

Batch normalisation always uses its pretrained statistics here (`shared.vision.model`), so that it is one scale and one
shift a channel, which learn; other statistics would be another scale and shift, and nothing else has to be kept.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from shared.contracts.errors import ModelInvalidError
from shared.vision.model import CellModel

_KINDS: Final = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def normalisation_names(model: CellModel) -> tuple[str, ...]:
    """Return the names of the tail's scales and shifts, among those of `CellModel.trainable_state`."""
    found = []
    for name, module in model.tail.named_modules():
        if isinstance(module, _KINDS):
            found += [f"tail.{name}.{which}" for which, _ in module.named_parameters(recurse=False)]
    return tuple(found)


def normalisation_of(model: CellModel) -> dict[str, Tensor]:
    """Return copies of the tail's scales and shifts, by name."""
    state = model.trainable_state()
    return {name: state[name] for name in normalisation_names(model)}


def wear(model: CellModel, tensors: Mapping[str, Tensor]) -> None:
    """Set the tail's scales and shifts.

    Raises `ModelInvalidError`, changing nothing, if names or shapes are not the model's or a value is not finite.
    """
    model.load_trainable({**model.trainable_state(), **_checked(model, tensors)})


def _checked(model: CellModel, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if set(tensors) != set(normalisation_names(model)):
        raise ModelInvalidError("The site's own normalisation does not fit the model.")
    return tensors
