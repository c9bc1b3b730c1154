"""Takes the arithmetic of "same" padding out of an exported network: its image size is fixed, so the padding is too.

The tracing exporter writes TensorFlow's padding down as a dozen small nodes and a `Pad` in front of each strided
convolution. They cost a fifth of the time of a forward, and they part what a quantiser should see as one piece.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from shared.contracts.errors import ModelInvalidError
from shared.vision.device import cpu_session

Node = Any  # onnx's generated classes have no useful types
_AUTO = (b"", b"NOTSET")


def fold_padding(file: Path) -> int:
    """Rewrite the ONNX ``file`` (input ``images``, free batch size) with constant padding; return how many were folded.

    Zero padding in front of one convolution becomes that convolution's own; other padding keeps its node. What the
    network computes stays the same, bit by bit.

    Raises `ModelInvalidError` if the file cannot be read or run.
    """
    try:
        model = onnx.load(file)
    except Exception as error:  # protobuf's errors have no base of their own
        raise ModelInvalidError("The model file cannot be read; export or install it again.") from error
    graph = model.graph
    pads = [node for node in graph.node if node.op_type == "Pad" and _plain(node)]
    if not pads:
        return 0
    found = _values(model, file, sorted({name for node in pads for name in node.input[1:] if name}))
    folded = sum(_fold(graph, node, found) for node in pads)
    _drop_unused(graph)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return folded


def _plain(node: Node) -> bool:
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    return all(mode == b"constant" for mode in modes) and len(node.input) <= 3


def _values(model: Node, file: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """Return the values that do not depend on the images or their number."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {output.name for output in probe.graph.output}
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in probe.graph.initializer}
    wanted = [name for name in names if name not in known and name not in constants]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    part = file.with_name(f"{file.name}.probe")
    try:
        onnx.save(probe, part)
        session = cpu_session(part)
    finally:
        part.unlink(missing_ok=True)
    shape = session.get_inputs()[0].shape[1:]
    runs = [
        session.run(wanted, {"images": np.full((count, *shape), level, np.float32)})
        for count, level in ((1, 0.0), (2, 0.5))
    ]
    same = {name: one for name, one, two in zip(wanted, *runs, strict=True) if np.array_equal(one, two)}
    return {name: value for name, value in constants.items() if name in names} | same


def _fold(graph: Node, node: Node, values: dict[str, NDArray[Any]]) -> bool:
    if any(name and name not in values for name in node.input[1:]):
        return False
    amounts = values[node.input[1]].astype(np.int64)
    users = [other for other in graph.node if node.output[0] in other.input]
    outputs = {output.name for output in graph.output}
    level = values[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if len(users) == 1 and node.output[0] not in outputs and not np.any(level) and _takes(users[0], amounts):
        _give(users[0], amounts)
        users[0].input[0] = node.input[0]
        graph.node.remove(node)
        return True
    name = f"{node.output[0]}_amounts"
    graph.initializer.append(onnx.numpy_helper.from_array(amounts, name))
    node.input[1] = name
    return True


def _takes(user: Node, amounts: NDArray[np.int64]) -> bool:
    """Whether ``user`` is a convolution that can pad by ``amounts`` (begins, then ends, of all dimensions)."""
    half = len(amounts) // 2
    spatial = not (amounts[:2].any() or amounts[half : half + 2].any()) and bool((amounts >= 0).all())
    automatic = any(attribute.name == "auto_pad" and attribute.s not in _AUTO for attribute in user.attribute)
    return user.op_type == "Conv" and spatial and not automatic


def _give(user: Node, amounts: NDArray[np.int64]) -> None:
    half = len(amounts) // 2
    total = np.concatenate([amounts[2:half], amounts[half + 2 :]])
    for attribute in list(user.attribute):
        if attribute.name == "pads":
            total = total + np.array(attribute.ints, np.int64)
            user.attribute.remove(attribute)
    user.attribute.append(onnx.helper.make_attribute("pads", total.tolist()))


def _drop_unused(graph: Node) -> None:
    while True:
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        idle = [node for node in graph.node if not any(name in used for name in node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for value in [value for value in graph.initializer if value.name not in used]:
        graph.initializer.remove(value)
