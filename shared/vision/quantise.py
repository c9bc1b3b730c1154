"""INT8: an exported model quantised statically, with ranges taken from a site's own cells. Needs no torch.

Activations U8, weights S8 per channel, as quantise-dequantise pairs: with VNNI that is the fastest form, and S8
activations were half as fast. The ranges are moving averages of each batch's least and greatest value: percentile and
entropy calibration cost more accuracy here (ReLU6 bounds most activations already). See docs/inference-only.md.
"""

import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import DependencyMissingError, ModelInvalidError

Arrays = NDArray[np.float32]
_FEATURES: Final = "features"
_TYPES: Final = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool",
    "Pad",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a model is quantised."""

    narrow: bool | None = None
    """Whether weights have seven bits instead of eight; None: where this processor needs it (`saturates`)."""
    leading: int = 3
    """So many first convolutions stay fp32: their few channels of widely different range lose most by it."""
    momentum: float = 0.1
    """Weight of a new batch in the moving average of the ranges."""


DEFAULT: Final = Quantisation()


def saturates(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = "") -> bool:
    """Return whether this processor adds pairs of U8 × S8 products in sixteen bits, as x86 without VNNI does.

    Large products then end at the greatest number there is, which spoils features without an error; with weights of
    seven bits none is so large. Source: "Quantize ONNX models" of ONNX Runtime's documentation.
    ``machine``: as `platform.machine` says it; empty: this one. Where ``cpuinfo`` cannot be read: assumed of any x86.
    """
    if (machine or platform.machine()).lower() not in {"x86_64", "amd64", "i686", "i386"}:
        return False
    return not cpuinfo.is_file() or "vnni" not in cpuinfo.read_text()


class _Reader:
    """Hands the calibration batches to the quantiser."""

    def __init__(self, batches: Iterable[Arrays]) -> None:
        self._batches: Iterator[Arrays] = iter(batches)

    def get_next(self) -> dict[str, Arrays] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def quantise(source: Path, out: Path, batches: Iterable[Arrays], settings: Quantisation = DEFAULT) -> None:
    """Write the INT8 form of ``source`` (images → logits, features, objects) to ``out``; same inputs and outputs.

    ``batches``: normalised images (N × 3 × S × S float32) of cells like those that will be read; about a hundred in
    all are enough. The heads behind the features stay fp32: they cost next to nothing. ``source`` is not changed.

    Raises:
        DependencyMissingError: onnx is not installed.
        ModelInvalidError: the file cannot be quantised.
    """
    onnx, quantization = _libraries()
    from shared.vision.simplify import fold_padding  # at use: imports onnx

    with tempfile.TemporaryDirectory(prefix="hematovision-int8-") as folder:
        plain, part = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        shutil.copyfile(source, plain)
        fold_padding(plain)
        try:
            quantization.shape_inference.quant_pre_process(str(plain), str(plain), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(plain),
                str(part),
                _Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=saturates() if settings.narrow is None else settings.narrow,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                op_types_to_quantize=list(_TYPES),
                nodes_to_exclude=_excluded(onnx.load(plain).graph, settings.leading),
                extra_options={
                    "CalibMovingAverage": True,
                    "CalibMovingAverageConstant": settings.momentum,
                },
            )
        except Exception as error:  # the quantiser's errors have no common base
            raise ModelInvalidError("The model could not be quantised; it goes on running in fp32.") from error
        shutil.copyfile(part, out)


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime.quantization as quantization
        import onnxruntime.quantization.shape_inference  # noqa: F401 - not loaded by its package
    except ImportError as error:
        raise DependencyMissingError("onnx and onnxruntime are needed to quantise: pip install onnx.") from error
    return onnx, quantization


def _excluded(graph: Any, leading: int) -> list[str]:  # Any: onnx's generated classes have no useful types
    """Return the nodes that stay fp32: the first convolutions, and what lies behind or beside the pooled features."""
    before = _ancestors(graph, _FEATURES)
    first = [node.name for node in graph.node if node.op_type == "Conv"][:leading]
    return [*first, *(node.name for node in graph.node if node.name not in before)]


def _ancestors(graph: Any, output: str) -> set[str]:  # Any: as above
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    open_names = [output]
    while open_names:
        node = makers.get(open_names.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            open_names.extend(node.input)
    return found
