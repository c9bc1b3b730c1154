"""Choosing where a model runs."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.contracts.errors import ConfigError, ModelInvalidError
from shared.vision import device
from shared.vision.device import CPU, CUDA, DEVICE_VARIABLE, THREADS_VARIABLE, choose_providers, half_kind

ROOT = Path(__file__).parents[3]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize(
    ("available", "asked", "expected"),
    [
        ((CPU,), "auto", (CPU,)),
        ((CUDA, CPU), "auto", (CUDA, CPU)),
        (("TensorrtExecutionProvider", CUDA, CPU), "auto", (CUDA, CPU)),
        ((CUDA, CPU), "cpu", (CPU,)),
        ((CPU,), "cuda", (CPU,)),
        (("OpenVINOExecutionProvider", CPU), "OpenVINOExecutionProvider", ("OpenVINOExecutionProvider", CPU)),
        ((CPU,), f"OpenVINOExecutionProvider,{CPU}", (CPU,)),
    ],
)
def test_choose_providers_takes_what_is_there_and_ends_with_the_cpu(
    available: tuple[str, ...], asked: str, expected: tuple[str, ...]
) -> None:
    assert choose_providers(available, asked) == expected


def test_a_device_that_is_not_there_is_logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    choose_providers((CPU,), "cuda")
    assert "device.not_available" in capsys.readouterr().out + caplog.text
    choose_providers((CPU,), "auto")
    assert "device.not_available" not in capsys.readouterr().out


@pytest.mark.parametrize(("text", "expected"), [("", "auto"), (" CPU ", "cpu"), ("cuda", "cuda"), (CUDA, CUDA)])
def test_asked_device_reads_the_setting(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, text)
    assert device.asked_device() == expected


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "gpu")
    with pytest.raises(ConfigError, match=DEVICE_VARIABLE):
        device.asked_device()
    monkeypatch.setenv(THREADS_VARIABLE, "many")
    with pytest.raises(ConfigError, match=THREADS_VARIABLE):
        device.threads()


def test_session_of_no_network_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelInvalidError):
        device.session(tmp_path / "model.onnx")


def test_torch_part_on_the_cpu_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    place = device.torch_device()
    layer = device.placed(torch.nn.Linear(2, 2), place)
    with device.mixed_precision(place):
        assert (place.type, layer(torch.zeros(1, 2)).dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(
    ("device_type", "bfloat16", "expected"),
    [("cpu", False, None), ("cpu", True, None), ("cuda", True, "bfloat16"), ("cuda", False, "float16")],
)
def test_half_precision_is_bfloat16_where_the_hardware_has_it(
    device_type: str, bfloat16: bool, expected: str | None
) -> None:
    assert half_kind(device_type, bfloat16=bfloat16) == expected


def test_gradients_are_scaled_only_for_float16() -> None:
    scaler = device.grad_scaler(torch.device("cpu"))
    loss = torch.ones(1, requires_grad=True)
    assert not scaler.is_enabled()
    assert scaler.scale(loss) is loss


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("onnxruntime", False), ("onnxruntime-int8", False), ("onnxruntime-cuda", True), ("onnxruntime-tensorrt", True),
     ("onnxruntime-openvino", False), ("torch", False), ("torch-cuda", True)],
)  # fmt: skip
def test_engines_on_the_gpu_are_known_by_their_name(engine: str, expected: bool) -> None:
    assert device.shares_gpu(engine) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_an_error_for_want_of_memory_is_known_as_such(error: Exception, expected: bool) -> None:
    assert device.is_out_of_memory(error) is expected


def test_torchs_own_error_for_want_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert device.is_out_of_memory(caught.value)


def test_a_gpu_is_made_to_compute_the_same_twice_and_a_cpu_is_left_alone() -> None:
    """In a process of its own: these settings are the process's."""
    code = """
import os, torch
from shared.vision import device
device.prepare(torch.device("cpu"))
before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
device.make_repeatable()
after = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
cuda = torch.backends.cudnn.benchmark, torch.backends.cudnn.conv.fp32_precision, os.environ["CUBLAS_WORKSPACE_CONFIG"]
print(before, after, cuda, torch.backends.cuda.mem_efficient_sdp_enabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "(False, False) (True, True) (False, 'ieee', ':4096:8') False"


def test_batches_go_where_the_model_lies_as_it_wants_them() -> None:
    batch = torch.arange(24.0).reshape(1, 2, 3, 4)
    laid = device.laid(batch, torch.device("cpu"))
    assert laid.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(laid, batch)


@needs_cuda
def test_a_gpu_scales_gradients_exactly_where_it_computes_in_float16() -> None:
    place = torch.device("cuda")
    with device.mixed_precision(place):
        kind = torch.nn.Linear(2, 2).to(place)(torch.zeros(1, 2, device=place)).dtype
    assert kind in (torch.bfloat16, torch.float16)
    assert device.grad_scaler(place).is_enabled() == (kind is torch.float16)
