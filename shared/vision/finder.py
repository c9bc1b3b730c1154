"""The head that accepts or rejects a proposal and corrects its box, on the classifier's own maps."""

import torch
from torch import Tensor, nn

from shared.vision.boxes import BOX_VALUES, KINDS, OUTPUTS

__all__ = ["BOX_VALUES", "KINDS", "OUTPUTS", "Finder"]

_CHANNELS = 24
_GRID = 4


class Finder(nn.Module):
    """Unpooled features (N × F × H × W) → N × `OUTPUTS`: a logit for each of `KINDS`, then the box's values.

    A narrow convolution keeps where things are; the pooled features would not say.
    """

    def __init__(self, features: int, *, seed: int = 0) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(features, _CHANNELS, 1)
        self.out = nn.Linear(_CHANNELS * _GRID * _GRID, OUTPUTS)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.reduce.weight.normal_(0.0, features**-0.5, generator=generator)
            self.out.weight.normal_(0.0, 0.01, generator=generator)
            for layer in (self.reduce, self.out):
                assert layer.bias is not None  # noqa: S101 - both were made with one
                layer.bias.zero_()

    def forward(self, maps: Tensor) -> Tensor:
        """Return the outputs; see the class."""
        narrow = torch.relu(self.reduce(maps))
        size = (_GRID, _GRID)
        gridded = nn.functional.interpolate(narrow, size=size, mode="bilinear", align_corners=False)
        return self.out(gridded.flatten(1))  # type: ignore[no-any-return]  # nn.Module calls are untyped
