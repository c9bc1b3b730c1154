"""A head that says where in a field the centres of cells lie: a heat-map, and a size at each of its places.

After CenterNet (Zhou, Wang & Krähenbühl 2019, "Objects as Points"), on the frozen classifier's own maps.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client_node.analysis.detection import Box, overlap
from client_node.analysis.detection.accept import SAME_CELL

Floats = NDArray[np.float32]

HEAT, SIZE, OFFSET = slice(0, 1), slice(1, 3), slice(3, 5)
"""Channels of the output: a logit; the logarithms of width and height in `UNIT` pixels; where the centre lies from the
place's middle, x and y, in places."""
OUTPUTS: Final = 5
UNIT: Final = 100.0
_CHANNELS: Final = 32
_RARE: Final = -4.0
_SPREAD: Final = 0.12
_LEAST_SPREAD: Final = 0.6
_NEAR: Final = 0.3
_BOX_WEIGHT: Final = 1.0
_MOST: Final = 200


class HeatHead(nn.Module):
    """Maps (N × F × H × W) → N × `OUTPUTS` × H × W; see `HEAT`, `SIZE` and `OFFSET`."""

    def __init__(self, features: int, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(features, _CHANNELS, 1), nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=2, dilation=2), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Conv2d(_CHANNELS, OUTPUTS, 1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()  # type: ignore[union-attr]  # it was made with one
            self.out.bias[HEAT] = _RARE  # type: ignore[index]  # almost no place is a centre

    def forward(self, maps: Tensor) -> Tensor:
        """Return the outputs; see the class."""
        return self.out(self.layers(maps))  # type: ignore[no-any-return]  # nn.Module calls are untyped


def goals(cells: Sequence[Box], height: int, width: int, stride: int) -> Floats:
    """Return what the head shall say (`OUTPUTS` × height × width) of a field with ``cells`` (boxes in pixels).

    The heat is 1 at each cell's centre and falls off by a Gaussian that is wider for larger cells; size and offset
    stand where the heat is that of the nearest cell, elsewhere 0.
    """
    made = np.zeros((OUTPUTS, height, width), np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    for x0, y0, x1, y1 in cells:
        x, y = (x0 + x1) / 2 / stride - 0.5, (y0 + y1) / 2 / stride - 0.5
        across, down = (max(_LEAST_SPREAD, _SPREAD * side / stride) for side in (x1 - x0, y1 - y0))
        place = int(np.clip(round(y), 0, height - 1)), int(np.clip(round(x), 0, width - 1))
        heat = np.exp(-(((columns - place[1]) / across) ** 2 + ((rows - place[0]) / down) ** 2) / 2)
        nearer = heat > made[0]
        made[0] = np.maximum(made[0], heat)
        made[1][nearer], made[2][nearer] = np.log((x1 - x0) / UNIT), np.log((y1 - y0) / UNIT)
        made[3][nearer], made[4][nearer] = (x - columns)[nearer], (y - rows)[nearer]
    return made


def loss_of(found: Tensor, wanted: Tensor) -> Tensor:
    """Return CenterNet's focal loss of the heat (its α = 2, β = 4) and the smooth L1 of size and offset near centres.

    Both N × `OUTPUTS` × H × W; the sums are taken per cell, as there.
    """
    logits, heat = found[:, 0], wanted[:, 0]
    chance = torch.sigmoid(logits)
    centre = heat >= 1.0 - 1e-4
    hit = functional.logsigmoid(logits) * (1.0 - chance) ** 2
    miss = functional.logsigmoid(-logits) * chance**2 * (1.0 - heat) ** 4
    cells = centre.sum().clamp_min(1)
    focal = -torch.where(centre, hit, miss).sum() / cells
    weight = torch.where(heat > _NEAR, heat, 0.0)[:, None]
    off = functional.smooth_l1_loss(found[:, 1:], wanted[:, 1:], beta=0.1, reduction="none") * weight
    return focal + _BOX_WEIGHT * off.sum() / weight.sum().clamp_min(1.0)


def peaks(found: Floats, stride: int, width: int, height: int, *, least: float) -> list[tuple[float, Box]]:
    """Return (probability, box in pixels) of the cells that the head's output (`OUTPUTS` × H × W) shows, surest first.

    A cell is a place whose heat is the greatest of its nine and at least ``least``, and whose box no surer one has.
    """
    heat = torch.sigmoid(torch.from_numpy(found[HEAT]))
    top = heat == functional.max_pool2d(heat, 3, stride=1, padding=1)
    rows, columns = (axis.numpy() for axis in torch.nonzero((top & (heat >= least))[0], as_tuple=True))
    order = np.argsort(-heat[0].numpy()[rows, columns], kind="stable")[:_MOST]
    kept: list[tuple[float, Box]] = []
    for row, column in zip(rows[order], columns[order], strict=True):
        log_width, log_height, dx, dy = (float(value) for value in found[1:, row, column])
        x, y = (column + 0.5 + np.clip(dx, -2, 2)) * stride, (row + 0.5 + np.clip(dy, -2, 2)) * stride
        across, down = (UNIT * np.exp(np.clip(value, -2, 1.5)) / 2 for value in (log_width, log_height))
        box = (
            max(0, round(x - across)), max(0, round(y - down)),
            min(width, round(x + across)), min(height, round(y + down)),
        )  # fmt: skip
        if box[0] < box[2] and box[1] < box[3] and all(overlap(box, other) < SAME_CELL for _, other in kept):
            kept.append((float(heat[0, row, column]), box))
    return kept
