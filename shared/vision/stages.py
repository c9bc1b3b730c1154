"""Every architecture as a stem, stages and an end, so that it can be frozen up to any stage and cut there.

What passes between two stages is always a grid (N × C × H × W): cached maps can then be turned and mirrored, and the
last maps be looked at in space, whatever the architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shared.vision.backbones import Family


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts of a network; run in turn they give its unpooled features."""

    stem: tuple[nn.Module, ...]
    stages: tuple[tuple[nn.Module, ...], ...]
    end: tuple[nn.Module, ...]


def split(family: Family, base: Any) -> Stages:  # Any: timm's models, untyped
    """Return the parts of timm's model ``base``; its own pooling and classifier are left out."""
    return _SPLITS[family](base)


def _efficientnet(base: Any) -> Stages:
    blocks = tuple((block,) for block in base.blocks.children())
    return Stages((base.conv_stem, base.bn1), blocks, (base.conv_head, base.bn2))


def _mobilenet(base: Any) -> Stages:
    # Its last convolution comes after the pooling and belongs to the classifier.
    return Stages((base.conv_stem, base.bn1), tuple((block,) for block in base.blocks.children()), ())


def _resnet(base: Any) -> Stages:
    layers = ((base.layer1,), (base.layer2,), (base.layer3,), (base.layer4,))
    return Stages((base.conv1, base.bn1, base.act1, base.maxpool), layers, ())


def _densenet(base: Any) -> Stages:
    parts = base.features
    blocks = tuple((getattr(parts, f"denseblock{n}"), getattr(parts, f"transition{n}")) for n in (1, 2, 3))
    return Stages((parts.conv0, parts.norm0, parts.pool0), (*blocks, (parts.denseblock4,)), (parts.norm5, nn.ReLU()))


def _vit(base: Any) -> Stages:
    return Stages((_Patches(base),), tuple((_OnGrid(block),) for block in base.blocks), (_OnGrid(base.norm),))


class _Patches(nn.Module):
    """The patches' tokens as a grid, with their places; without a class token, since features are pooled in space."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.project = base.patch_embed.proj
        places = base.pos_embed[:, base.num_prefix_tokens :]
        side = round(places.shape[1] ** 0.5)
        self.places = nn.Parameter(places.detach().transpose(1, 2).reshape(1, -1, side, side).clone())

    def forward(self, images: Tensor) -> Tensor:
        grid: Tensor = self.project(images)
        size = (int(grid.shape[2]), int(grid.shape[3]))
        places: Tensor = self.places
        if size != (places.shape[2], places.shape[3]):
            places = functional.interpolate(places, size=size, mode="bilinear", align_corners=False)
        return grid + places


class _OnGrid(nn.Module):
    """A module of tokens, on a grid."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, grid: Tensor) -> Tensor:
        tokens: Tensor = self.module(grid.flatten(2).transpose(1, 2)).transpose(1, 2)
        return tokens.reshape(grid.shape)


_SPLITS: dict[Family, Callable[[Any], Stages]] = {
    Family.EFFICIENTNET: _efficientnet,
    Family.MOBILENET: _mobilenet,
    Family.RESNET: _resnet,
    Family.DENSENET: _densenet,
    Family.VIT: _vit,
}
