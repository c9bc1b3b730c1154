"""Folding the padding of an exported network."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.contracts.errors import ModelInvalidError
from shared.vision.device import cpu_session
from shared.vision.simplify import fold_padding


def _network(file: Path, *, level: float = 0.0, batch_dependent: bool = False) -> Path:
    """Write a network that computes its padding from the shape of its images, as exported "same" padding does."""
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        "two": np.array([2], np.int64),
        "zeros": np.zeros(2, np.int64),
        "first": np.array([0], np.int64),
        "level": np.array(level, np.float32),
        "weights": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
        "rest": np.array([3], np.int64),
    }
    which = "first" if batch_dependent else "rest"
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", which], ["side"]),
        helper.make_node("Div", ["side", "two"], ["half"]),
        helper.make_node("Concat", ["zeros", "first", "first", "zeros", "half", "half"], ["amounts"], axis=0),
        helper.make_node("Pad", ["images", "amounts", "level"], ["padded"]),
        helper.make_node("Conv", ["padded", "weights"], ["maps"], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(file))
    return file


def _run(file: Path, count: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    images = np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)
    maps: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = cpu_session(file).run(["maps"], {"images": images})[0]
    return maps


def test_fold_padding_zero_padding_becomes_the_convolutions_own(tmp_path: Path) -> None:
    file = _network(tmp_path / "a.onnx")
    before = _run(file)
    assert fold_padding(file) == 1
    graph = onnx.load(file).graph
    assert [node.op_type for node in graph.node] == ["Conv"]
    assert [value.name for value in graph.initializer] == ["weights"]
    assert np.array_equal(_run(file), before)
    assert list(tmp_path.iterdir()) == [file]


def test_fold_padding_other_padding_keeps_its_node_with_constant_amounts(tmp_path: Path) -> None:
    file = _network(tmp_path / "a.onnx", level=1.0)
    before = _run(file)
    assert fold_padding(file) == 1
    assert [node.op_type for node in onnx.load(file).graph.node] == ["Pad", "Conv"]
    assert np.array_equal(_run(file), before)


def test_fold_padding_that_depends_on_the_batch_is_left_alone(tmp_path: Path) -> None:
    file = _network(tmp_path / "a.onnx", batch_dependent=True)
    before = [_run(file, count) for count in (2, 6)]
    assert fold_padding(file) == 0
    assert [np.array_equal(_run(file, count), old) for count, old in zip((2, 6), before, strict=True)] == [True, True]


def test_fold_padding_of_a_damaged_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(ModelInvalidError):
        fold_padding(file)
