"""Structured pruning: whole channels of a trained model removed, so that it is smaller and faster as it stands.

By torch-pruning (MIT), which follows a channel through every layer that depends on it. A bench only, so far: on the
default backbone it gains less than INT8 and costs far more accuracy, see docs/inference-only.md; and a pruned model no
longer stands on the frozen base that hospitals share.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from shared.contracts.errors import DependencyMissingError, UsageError
from shared.vision.model import CellModel

_ROUND_TO = 8
"""Channels stay a multiple of this: vector units compute so many at once."""


def prune(model: CellModel, size: int, ratio: float, tune: Callable[[CellModel], None]) -> CellModel:
    """Return a copy of ``model`` without the weakest ``ratio`` of the channels in each layer, tuned by the caller.

    ``size``: side of the images in pixels. The features keep their width, so that heads, calibration and reference
    cells still fit. ``tune`` trains the copy in place, all of whose parameters learn. Export it with
    `shared.vision.export.export_onnx`; it cannot be written as tensors on the shared base.

    Raises:
        UsageError: ``ratio`` is not between 0 and 0.9.
        DependencyMissingError: torch-pruning is not installed.
    """
    if not 0.0 < ratio < 0.9:
        raise UsageError("The share of channels to prune lies between 0 and 0.9.")
    try:
        import torch_pruning
    except ImportError as error:
        raise DependencyMissingError("Pruning needs torch-pruning: pip install torch-pruning.") from error
    smaller = copy.deepcopy(model).requires_grad_(True)  # the library follows gradients
    pruner = torch_pruning.pruner.MagnitudePruner(
        smaller,
        torch.zeros(1, 3, size, size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=_ROUND_TO,
        ignored_layers=[_last_convolution(smaller), *smaller.head.modules(), *smaller.finder.modules()],
    )
    pruner.step()
    tune(smaller)
    return smaller.eval()


def _last_convolution(model: CellModel) -> nn.Module:
    """Return the convolution that makes the features."""
    return [module for module in model.tail.modules() if isinstance(module, nn.Conv2d)][-1]
