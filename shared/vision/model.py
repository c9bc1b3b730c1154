"""The cell model: a frozen pretrained trunk, and a tail and two heads that hospitals train together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shared.contracts.errors import ModelInvalidError
from shared.vision.backbones import BackboneEntry, get
from shared.vision.finder import Finder
from shared.vision.stages import split
from shared.vision.weights import base_model


class CellModel(nn.Module):
    """Pretrained backbone, cut in two, with a head that names the cell and one that says whether it is one.

    ``trunk``: images (N × 3 × S × S float32) → maps; frozen. ``tail``: maps → unpooled features (N × F × H × W);
    ``head``: pooled features (N × F) → logits (N × classes); ``finder``: unpooled features → objects (N ×
    `finder.OUTPUTS`); all trainable. The cut lies behind ``frozen_stages`` stages (None: as the entry says); with 0
    the trunk is empty and the whole network learns. Batch normalisation always uses its pretrained statistics: a
    small hospital's own would be noise, and the average over different stains would fit none of them.
    """

    def __init__(self, entry: BackboneEntry, classes: int, *, frozen_stages: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.entry = entry
        frozen = entry.trunk_blocks if frozen_stages is None else frozen_stages
        if not 0 <= frozen <= entry.stages:
            raise ModelInvalidError(f"{entry.name} has {entry.stages} stages; a recipe can freeze no more than these.")
        parts = split(entry.family, base_model(entry))
        whole = [parts.stem, *parts.stages]
        cut = frozen + 1 if frozen else 0  # the stem goes with the first stage
        self.trunk = nn.Sequential(*(module for stage in whole[:cut] for module in stage))
        self.tail = nn.Sequential(*(module for stage in whole[cut:] for module in stage), *parts.end)
        self.head = nn.Linear(entry.feature_size, classes)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.head.weight.normal_(0.0, 0.01, generator=generator)
            self.head.bias.zero_()
        self.finder = Finder(entry.feature_size, seed=seed)
        self.trunk.requires_grad_(False)
        self.tail.requires_grad_(True)
        self.eval()

    def train(self, mode: bool = True) -> "CellModel":  # noqa: ARG002 - nn.Module's signature
        """Stay in evaluation mode: see the class's note on batch normalisation."""
        super().train(False)
        return self

    def features(self, maps: Tensor) -> Tensor:
        """Return pooled features of the trunk's maps."""
        return self.tail(maps).mean(dim=(2, 3))  # type: ignore[no-any-return]  # nn.Module calls are untyped

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (logits, features, objects) of normalised images; see the class."""
        maps = self.tail(self.trunk(images))
        features = maps.mean(dim=(2, 3))
        return self.head(features), features, self.finder(maps)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return copies of the tensors that learn, by name."""
        return {name: value.detach().clone() for name, value in self.named_parameters() if value.requires_grad}

    def load_trainable(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the tensors that learn.

        Raises `ModelInvalidError` if names or shapes differ or a value is not finite; nothing is changed then.
        """
        own = {name: value for name, value in self.named_parameters() if value.requires_grad}
        if set(own) != set(tensors):
            raise ModelInvalidError("The model's tensors are not those of its recipe; ask the centre for a new model.")
        for name, value in own.items():
            given = tensors[name]
            if given.shape != value.shape or not given.is_floating_point():
                raise ModelInvalidError(
                    "A tensor of the model has a wrong shape or type; ask the centre for a new model."
                )
            if not bool(torch.isfinite(given).all()):
                raise ModelInvalidError("A tensor of the model is not finite; ask the centre for a new model.")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])


def build(backbone: str, classes: int, *, frozen_stages: int | None = None, seed: int = 0) -> CellModel:
    """Return a fresh model for ``classes`` classes.

    Raises `ModelInvalidError` for an unknown backbone, or one that has fewer stages than shall be frozen.
    """
    return CellModel(get(backbone), classes, frozen_stages=frozen_stages, seed=seed)
