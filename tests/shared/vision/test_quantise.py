"""INT8 weights as this processor can use them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.vision.quantise import DEFAULT, quantise, saturates

_RNG = np.random.default_rng(0)


def _network(file: Path) -> Path:
    """Write a network of one convolution whose pooled maps are the features."""
    weights = _RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["maps"], name="conv"),
        helper.make_node("ReduceMean", ["maps", "axes"], ["features"], name="pool", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(file))
    return file


@pytest.mark.parametrize(("narrow", "greatest"), [(True, 64), (False, 127)])
def test_quantise_gives_weights_as_many_bits_as_it_is_told(tmp_path: Path, narrow: bool, greatest: int) -> None:
    out = tmp_path / "int8.onnx"
    batches = [_RNG.normal(size=(4, 3, 8, 8)).astype(np.float32) for _ in range(3)]
    quantise(_network(tmp_path / "plain.onnx"), out, batches, replace(DEFAULT, leading=0, narrow=narrow))
    (weights,) = (
        numpy_helper.to_array(value)
        for value in onnx.load(out).graph.initializer
        if value.data_type == TensorProto.INT8 and len(value.dims) == 4
    )
    assert np.abs(weights.astype(int)).max(axis=(1, 2, 3)).tolist() == [greatest] * 4


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : fma avx avx2", True),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("aarch64", "Features : asimd asimddp", False),
    ],
)
def test_saturates_on_x86_without_vnni(tmp_path: Path, machine: str, flags: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(flags)
    assert saturates(cpuinfo, machine) is expected


def test_saturates_is_assumed_of_an_x86_that_does_not_tell(tmp_path: Path) -> None:
    assert saturates(tmp_path / "none", "x86_64")
    assert not saturates(tmp_path / "none", "arm64")
