"""Where in a crop a model sees evidence for a class: class-activation maps, with torch by captum, or from ONNX alone.

The head of every model here is linear on spatially pooled maps (`shared.vision.model`). So Grad-CAM on the last maps
(Selvaraju et al. 2017) and the class-activation map of the exported file (Zhou et al. 2016), which needs no torch, are
the same picture but for a constant factor.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from client_node.analysis.method import Method
from client_node.analysis.morphology import closed
from shared.contracts.errors import DependencyMissingError, ModelInvalidError, WeightsMissingError
from shared.contracts.training import Recipe
from shared.vision.engine import cpu_session
from shared.vision.precision import ONNX_FILE, delta_file, whole_file
from shared.vision.preprocessing import Pixels, scale

if TYPE_CHECKING:
    from shared.vision.model import CellModel

Floats = NDArray[np.float32]
Maps = Callable[[Floats, int], Floats]
"""Normalised images (N × 3 × S × S) and a class position → signed evidence (N × h × w)."""
_FINE: Final = 16
"""So many samples along a side are wanted; networks whose last maps have fewer look at shifted crops."""
_POOLING: Final = ("ReduceMean", "GlobalAveragePool")
_PASSING: Final = ("Flatten", "Squeeze", "Reshape", "Identity")


def maps_of(folder: Path, recipe: Recipe, method: Method = Method.AUTO) -> tuple[Maps, Method]:
    """Return what computes the maps of the model in ``folder``, and which way it is.

    Raises:
        DependencyMissingError: the asked (or only possible) way needs packages that are not installed.
        ModelInvalidError: the model's files are missing, damaged, or of another form.
    """
    if method is not Method.CAM:
        try:
            return gradcam_maps(_torch_model(folder, recipe)), Method.GRADCAM
        except (DependencyMissingError, ModelInvalidError):
            if method is Method.GRADCAM or not (folder / ONNX_FILE).is_file():
                raise
    return cam_maps(whole_file(folder)), Method.CAM


def _torch_model(folder: Path, recipe: Recipe) -> "CellModel":
    delta = delta_file(folder)
    if not delta.is_file():
        raise ModelInvalidError("The model's tensors are not here: use --method cam, or install the model again.")
    try:
        import captum.attr  # noqa: F401
        import torch  # noqa: F401

        from shared.vision.torch_engine import load_model
    except ImportError as error:
        raise DependencyMissingError(
            "Grad-CAM needs torch and captum: install hematovision[node], or use --method cam."
        ) from error
    try:
        return load_model(delta, recipe)
    except WeightsMissingError as error:
        raise DependencyMissingError(f"{error.message} Or use --method cam, which does without.") from error


def gradcam_maps(model: "CellModel") -> Maps:
    """Return Grad-CAM on the model's last maps, by captum."""
    import torch
    from captum.attr import LayerGradCam

    def relative(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(images)[0]
        return logits - logits.mean(dim=1, keepdim=True)

    def maps(images: Floats, position: int) -> Floats:
        batch = torch.from_numpy(images).requires_grad_(True)
        found = LayerGradCam(relative, model.tail).attribute(batch, target=int(position))
        result: Floats = found.detach().numpy()[:, 0].astype(np.float32)
        return result

    return maps


def cam_maps(file: Path) -> Maps:
    """Return the class-activation maps of an exported model: its last maps, weighted by its head."""
    try:
        model = onnx.load(file)
    except Exception as error:  # protobuf's errors have no base of their own
        raise ModelInvalidError("The model file cannot be read; install the model again.") from error
    name, weights = _last_maps(model), _head(model)
    relative = weights - weights.mean(axis=0)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    if name == "images":  # a model without any layers in front of its pooling: nothing to run
        return lambda images, position: np.einsum("nfhw,f->nhw", images, relative[position]).astype(np.float32)
    with tempfile.TemporaryDirectory() as place:
        part = Path(place) / "maps.onnx"
        onnx.save(model, part)
        session = cpu_session(part)

    def maps(images: Floats, position: int) -> Floats:
        (found,) = session.run([name], {"images": images})
        seen: Floats = np.einsum("nfhw,f->nhw", found, relative[position]).astype(np.float32)
        return seen

    return maps


def _last_maps(model: Any) -> str:  # Any: onnx has no types
    """Return the name of what is pooled into the features."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get("features")
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in _POOLING:
        raise ModelInvalidError("This model file does not pool its last maps: only Grad-CAM with torch can explain it.")
    name: str = node.input[0]
    return name


def _head(model: Any) -> Floats:  # Any: onnx has no types
    """Return the head's weights, classes × features."""
    constants = {value.name: value for value in model.graph.initializer}
    for node in model.graph.node:
        if "logits" in node.output and node.op_type == "Gemm" and node.input[0] == "features":
            weights = np.asarray(numpy_helper.to_array(constants[node.input[1]]), np.float32)
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            return weights if turned else weights.T
    raise ModelInvalidError("This model file has no linear head: only Grad-CAM with torch can explain it.")


def heat(maps: Maps, image: Floats, position: int, side: int, *, fine: int = _FINE) -> Floats:
    """Return where the model sees evidence for a class: ``side`` × ``side`` float32, 0–1, its greatest value 1.

    ``image``: one normalised crop, 3 × S × S. Evidence is for the class *against the mean of all classes*, since what
    raises every logit alike changes no probability; what speaks against it counts as 0, and without any evidence all
    is 0. Coarse last maps are sampled on several crops, shifted by parts of a map's cell and laid into one another, so
    that there are at least ``fine`` samples along a side.
    """
    first = maps(image[None], position)
    steps = max(1, -(-fine // first.shape[1]))
    sampled = first[0] if steps == 1 else _interleaved(maps, image, position, first.shape[1], steps)
    large = scale_map(np.maximum(sampled, 0.0), side)
    top = float(large.max())
    return large / top if top > 0 else large


def _interleaved(maps: Maps, image: Floats, position: int, cells: int, steps: int) -> Floats:
    size = image.shape[1]
    stride = size / cells
    moves = [round(((place + 0.5) / steps - 0.5) * stride) for place in range(steps)]
    margin = max(map(abs, moves))
    wide = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    fine = np.zeros((cells * steps, cells * steps), np.float32)
    for row, down in enumerate(moves):
        views = [wide[:, margin + down :, margin + across :][:, :size, :size] for across in moves]
        for column, found in enumerate(maps(np.ascontiguousarray(np.stack(views)), position)):
            fine[row::steps, column::steps] = found
    return fine


def scale_map(values: Floats, side: int) -> Floats:
    """Return a square map brought to ``side`` × ``side``, bilinear."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR))


def dyed(crop: Pixels, side: int) -> NDArray[np.bool_]:
    """Return where the nucleus of the cell in the middle of a crop is (side × side): for figures, not for the eye.

    Absorption of red light over Otsu's threshold, closed; of its parts the one nearest to the centre.
    """
    # Nuclei absorb red light, haemoglobin hardly does; so red cells beside the white one do not join in.
    pixels = scale(crop, side).astype(np.float32)
    absorbed = ndimage.gaussian_filter(-np.log10(np.maximum(pixels[..., 0], 1.0) / 255.0), side / 96)
    mask = closed(absorbed > threshold_otsu(absorbed), max(1, side // 36))
    parts, count = ndimage.label(mask)
    if not count:
        return np.zeros((side, side), bool)
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows - side / 2, columns - side / 2)
    nearest = ndimage.minimum(distance, parts, np.arange(1, count + 1))
    return np.asarray(parts == int(np.argmin(nearest)) + 1)
