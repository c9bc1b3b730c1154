"""The scale and shift of a model's channels: what a site may keep of its own (FedBN; Li et al. 2021).

Batch normalisation always uses its pretrained statistics here (`shared.vision.model`), so that it is one scale and one
shift a channel, which learn. Other statistics are another scale and shift: what a site's cells say of their mean and
spread is folded into them, and nothing else has to be kept, sent or exported.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from shared.contracts.errors import ModelInvalidError
from shared.vision.model import CellModel

_KINDS: Final = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
PRIOR_CELLS: Final = 64.0
"""So many cells' worth the pretrained statistics count against the site's (Schneider et al. 2020)."""


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


def adapt(model: CellModel, batches: Callable[[], Iterable[Tensor]], *, prior: float = PRIOR_CELLS) -> None:
    """Bring the tail's batch normalisation near to the statistics of a site's cells, layer after layer.

    Each channel's mean and variance become those of the cells (N, of all ``batches`` of maps in front of the tail) and
    the pretrained ones, weighed N to ``prior`` as in Schneider et al. (2020), and are folded into its scale and shift.
    ``batches`` is called once a layer. Layers without statistics stay as they are.
    """
    for layer in model.tail.modules():
        if isinstance(layer, nn.BatchNorm2d):
            taken = _Sums()
            hook = layer.register_forward_pre_hook(lambda _, given, taken=taken: taken.add(given[0]))
            try:
                with torch.inference_mode():
                    for batch in batches():
                        model.tail(batch)
            finally:
                hook.remove()
            if taken.cells:
                _fold(layer, taken, taken.cells / (taken.cells + prior))


class _Sums:
    """Sums over the values of each channel."""

    def __init__(self) -> None:
        self.cells = 0
        self.count = 0
        self.total = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take a batch of maps (N × C × H × W)."""
        exact = values.double()
        self.cells += len(exact)
        self.count += exact.numel() // exact.shape[1]
        self.total = self.total.to(exact) + exact.sum(dim=(0, 2, 3))
        self.squares = self.squares.to(exact) + (exact**2).sum(dim=(0, 2, 3))


@torch.no_grad()
def _fold(layer: nn.BatchNorm2d, taken: _Sums, weight: float) -> None:
    """Change a layer's scale and shift to what other statistics would do, ``weight`` of them the site's."""
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        return
    own_mean = taken.total / taken.count
    own_variance = taken.squares / taken.count - own_mean**2
    new_mean = torch.lerp(mean.double(), own_mean, weight)
    new_variance = torch.lerp(variance.double(), own_variance.clamp(min=0.0), weight)
    spread, new_spread = (variance.double() + layer.eps).sqrt(), (new_variance + layer.eps).sqrt()
    scale = layer.weight.double()
    layer.bias.add_((scale * (mean.double() - new_mean) / new_spread).to(layer.bias.dtype))
    layer.weight.copy_(scale * spread / new_spread)
