"""The time from a field to its cells with their classes: by a heat-map, and by proposals and the trained step."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client_node.analysis.detection import Box, propose
from client_node.analysis.detection.accept import accept
from shared.contracts.training import Recipe
from shared.vision import preprocessing
from shared.vision.device import cpu_session
from shared.vision.engine import CPU_BATCH, OnnxEngine, Outputs
from shared.vision.export import OPSET, export_onnx
from shared.vision.images import load_image
from shared.vision.model import CellModel
from shared.vision.precision import ONNX_FILE
from shared.vision.simplify import fold_padding
from tests.bench.model.clock import core_ms, middle, one_core
from tests.bench.model.evaluate import Row, row
from tests.bench.model.heatmap_head import HeatHead, peaks

Pixels = NDArray[np.uint8]

_SIDE: Final = 64


class FieldTrunk(nn.Module):
    """The layers of a model up to each of ``strides``: images (N × 3 × H × W) → maps of each stride."""

    def __init__(self, model: CellModel, strides: Sequence[int]) -> None:
        super().__init__()
        maps, ends = torch.zeros(1, 3, _SIDE, _SIDE), dict[int, int]()
        layers = [*model.trunk, *model.tail]
        self.widths = dict[int, int]()
        with torch.inference_mode():
            for number, layer in enumerate(layers):
                maps = layer(maps)
                stride = _SIDE // maps.shape[2]
                if stride > max(strides):
                    break
                ends[stride], self.widths[stride] = number, int(maps.shape[1])
        self.ends = [ends[stride] for stride in strides]
        self.layers = nn.Sequential(*layers[: max(self.ends) + 1])
        self.eval()  # these are the model's own layers, and the exporter puts back the mode that it finds

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps; see the class."""
        found = []
        for number, layer in enumerate(self.layers):
            images = layer(images)
            if number in self.ends:
                found.append(images)
        return tuple(found)


def exported(module: nn.Module, shape: tuple[int, int], names: Sequence[str]) -> Any:  # Any: ONNX Runtime has no types
    """Return ``module``, which takes images of ``shape`` (height, width), as a session of ONNX Runtime."""
    with tempfile.TemporaryDirectory(prefix="hematovision-heatmap-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see `shared.vision.export.trace`, which knows square images only
        file = Path(folder) / "fields.onnx"
        torch.onnx.export(
            module, (torch.zeros(1, 3, *shape),), str(file), dynamo=False, opset_version=OPSET,
            input_names=["images"], output_names=list(names),
            dynamic_axes={name: {0: "batch"} for name in ("images", *names)},
        )  # fmt: skip
        fold_padding(file)
        return cpu_session(file)


class Detector(nn.Module):
    """A model's layers up to a stride, and the head on them: images → `heatmap_head.OUTPUTS`."""

    def __init__(self, model: CellModel, head: HeatHead, stride: int) -> None:
        super().__init__()
        self.trunk = FieldTrunk(model, (stride,))
        self.head = head
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the head's output; see the class."""
        return self.head(self.trunk(images)[0])  # type: ignore[no-any-return]  # nn.Module calls are untyped


def time_rows(
    model: CellModel, recipe: Recipe, fields: Sequence[Path], heads: Sequence[tuple[int, HeatHead, float]]
) -> list[Row]:
    """Return milliseconds a field on one core, from its pixels to the classes of its cells, for (stride, head,
    threshold) each and for the proposals and the trained step, in turn on the same fields of one size.
    """
    images = [load_image(path) for path in fields]
    with tempfile.TemporaryDirectory(prefix="hematovision-heatmap-") as folder, one_core():
        export_onnx(model, recipe.input_size, Path(folder) / ONNX_FILE)
        engine = OnnxEngine(Path(folder) / ONNX_FILE, len(recipe.classes), device="cpu")
        look = _Look(model, recipe, engine)
        variants: dict[str, Callable[[Pixels], object]] = {"proposals, then the trained step": look.proposed}
        for stride, head, least in heads:
            session = exported(Detector(model, head, stride), images[0].shape[:2], ["found"])
            variants[f"heat-map at 1/{stride}"] = look.heated(session, stride, least)
        taken = core_ms({name: _in_turn(work, images) for name, work in variants.items()}, repeats=len(images))
    return [
        row(f"field to classified cells, {name} (ms, one core)", *middle(values), len(values), goal=None)
        for name, values in taken.items()
    ]


def _in_turn(work: Callable[[Pixels], object], images: Sequence[Pixels]) -> Callable[[], object]:
    order = cycle(images)
    return lambda: work(next(order))


class _Look:
    """The two ways from a field's pixels to what the classifier says of its cells."""

    def __init__(self, model: CellModel, recipe: Recipe, engine: OnnxEngine) -> None:
        self._entry, self._size, self._engine = model.entry, recipe.input_size, engine

    def proposed(self, image: Pixels) -> int:
        """As the product does it: all that is proposed goes through the network, which judges it too."""
        boxes = [one.box for one in propose(image, generous=True)]
        outputs = self._classified(image, boxes)
        if not outputs:
            return 0
        height, width = image.shape[:2]
        return len(accept(boxes, np.concatenate([one.objects for one in outputs]), width, height).cells)

    def heated(self, session: Any, stride: int, least: float) -> Callable[[Pixels], int]:  # Any: see `exported`
        """By a heat-map: what it finds, and only that, goes through the network."""
        mean, std = (np.asarray(value, np.float32) for value in (self._entry.mean, self._entry.std))
        levels = (np.arange(256, dtype=np.float32)[:, None] / 255.0 - mean) / std

        def work(image: Pixels) -> int:
            height, width = image.shape[:2]
            balanced = preprocessing.balanced(image, preprocessing.white_point(image))
            inputs = np.stack([levels[balanced[..., channel], channel] for channel in range(3)])[None]
            found = session.run(None, {"images": inputs})[0][0]
            return len(self._classified(image, [box for _, box in peaks(found, stride, width, height, least=least)]))

        return work

    def _classified(self, image: Pixels, boxes: Sequence[Box]) -> list[Outputs]:
        white = preprocessing.white_point(image)
        inputs = [
            preprocessing.to_input(
                preprocessing.cell_crop(image, box, white), self._size, self._entry.mean, self._entry.std
            )
            for box in boxes
        ]
        return [
            self._engine.run(np.stack(inputs[start : start + CPU_BATCH])) for start in range(0, len(inputs), CPU_BATCH)
        ]
