"""Where a model runs: chosen in one place, from what the machine has and what the site asks for.

``HEMATOVISION_DEVICE`` is ``auto`` (default: a CUDA device where the runtime can use one), ``cpu``, ``cuda``, or names
of ONNX Runtime's execution providers, best first (``OpenVINOExecutionProvider,CPUExecutionProvider``). What is asked
for and not there is logged, and the CPU does the work. The first part needs no torch, the second imports it at use.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from shared.contracts.errors import ConfigError, DependencyMissingError, ModelInvalidError

if TYPE_CHECKING:
    import torch

DEVICE_VARIABLE: Final = "HEMATOVISION_DEVICE"
THREADS_VARIABLE: Final = "OMP_NUM_THREADS"
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TRAINING_SHARE: Final = 0.75
"""Of a GPU's memory, at most: what training has taken up, an analysis cannot wait for."""
_SUFFIX: Final = "ExecutionProvider"
_NO_MEMORY: Final = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
    "bad allocation", "failed to allocate memory", "alloc_failed",
)  # fmt: skip

log = structlog.get_logger(__name__)


def asked_device() -> str:
    """Return what the site asks for: ``auto``, ``cpu``, ``cuda`` or names of providers.

    Raises:
        ConfigError: the setting is none of these.
    """
    text = os.environ.get(DEVICE_VARIABLE, "").strip() or "auto"
    names = [name.strip() for name in text.split(",")]
    if text.lower() in ("auto", "cpu", "cuda"):
        return text.lower()
    if not all(name.endswith(_SUFFIX) for name in names):
        raise ConfigError(f"{DEVICE_VARIABLE} must be auto, cpu, cuda, or names of ONNX Runtime's providers.")
    return ",".join(names)


def threads() -> int:
    """Return the threads that one model may use; 0 = all cores.

    Raises:
        ConfigError: OMP_NUM_THREADS is no number.
    """
    text = os.environ.get(THREADS_VARIABLE, "").strip() or "0"
    if not text.isdigit():
        raise ConfigError(f"{THREADS_VARIABLE} must be a number of threads.")
    return int(text)


def choose_providers(available: Sequence[str], asked: str) -> tuple[str, ...]:
    """Return the providers to try, best first and the CPU last, of those ``available``."""
    if asked == "cpu":
        return (CPU,)
    wanted = (CUDA,) if asked in ("auto", "cuda") else tuple(asked.split(","))
    found = tuple(dict.fromkeys(name for name in wanted if name in available and name != CPU))
    if asked != "auto":
        for name in wanted:
            if name not in available:
                log.warning("device.not_available", asked=name, available=list(available), used=list(found) or [CPU])
    return (*found, CPU)


def on_cpu() -> bool:
    """Whether ONNX Runtime will compute on the CPU here; see `session` for the errors."""
    return runs_on() == CPU


def runs_on() -> str:
    """Return the provider that ONNX Runtime will try first here; see `session` for the errors."""
    return choose_providers(_runtime().get_available_providers(), asked_device())[0]


def session(file: Path, *, asked: str | None = None) -> Any:  # Any: ONNX Runtime ships no types
    """Return an ONNX Runtime session of ``file`` on the best device; see the module for how it is chosen.

    Raises:
        DependencyMissingError: the runtime is not installed.
        ModelInvalidError: the file cannot be loaded.
        ConfigError: the device setting is wrong.
    """
    runtime = _runtime()
    asked = asked or asked_device()
    providers = choose_providers(runtime.get_available_providers(), asked)
    for names in dict.fromkeys((providers, (CPU,))):
        try:
            made = runtime.InferenceSession(os.fspath(file), _options(runtime), providers=list(names))
        except Exception as error:  # the runtime's own error classes have no common base
            if names == (CPU,):
                raise ModelInvalidError("The model file cannot be loaded; install the model again.") from error
            log.warning("device.failed", provider=names[0], used=CPU)
            continue
        used = made.get_providers()
        if used[0] != names[0]:  # the runtime steps back by itself where the driver or a library is missing
            log.warning("device.failed", provider=names[0], used=used[0])
        return made
    raise AssertionError  # the CPU is always among them


def cpu_session(file: Path) -> Any:  # Any: ONNX Runtime ships no types
    """Return a session of ``file`` on the CPU; see `session` for the errors."""
    return session(file, asked="cpu")


def _runtime() -> Any:  # Any: ONNX Runtime ships no types
    try:
        import onnxruntime  # at use: the torch engine does without it
    except ImportError as error:
        raise DependencyMissingError(
            "onnxruntime is not installed; install hematovision with its `node` or `node-inference` extra."
        ) from error
    return onnxruntime


def _options(runtime: Any) -> Any:  # Any: ONNX Runtime ships no types
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # The arena keeps the largest batch's memory for good: some 50 MB with the engine's small batches. Without it the
    # runtime asks the system for pages again and again, which cost up to half the speed.
    options.enable_cpu_mem_arena = True
    return options


def torch_device() -> "torch.device":
    """Return where torch computes: ``cuda`` if asked for (or nothing else is) and there, else ``cpu``.

    Raises `ConfigError` if the device setting is wrong.
    """
    import torch

    asked = asked_device()
    there = torch.cuda.is_available()
    if (asked == "cuda" or CUDA in asked) and not there:
        log.warning("device.not_available", asked="cuda", used="cpu")
    wanted = asked in ("auto", "cuda") or CUDA in asked
    return torch.device("cuda" if wanted and there else "cpu")


def placed(module: "torch.nn.Module", device: "torch.device") -> "torch.nn.Module":
    """Move ``module`` to ``device``, its images last in memory on a GPU, whose convolutions want them so."""
    import torch

    if device.type != "cuda":
        return module.to(device)
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's stubs lack this form


def laid(batch: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Move N × C × H × W numbers to ``device``, their channels last in memory: convolutions want them so everywhere.

    On a CPU a training step then takes two thirds of the time.
    """
    import torch

    return batch.to(device).contiguous(memory_format=torch.channels_last)


def prepare(device: "torch.device") -> None:
    """Make training on a GPU repeatable and leave memory for analysis; does nothing on a CPU.

    The one place where these settings of the process are made; to be called before the first work on the GPU.
    """
    import torch

    if device.type != "cuda":
        return
    make_repeatable()
    torch.cuda.set_per_process_memory_fraction(TRAINING_SHARE, device)


def make_repeatable() -> None:
    """Let torch compute the same numbers from the same seed each time, and whole ones where half are not asked for."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else its reductions vary; read at the first product
    torch.backends.cudnn.benchmark = False  # would choose an algorithm by its speed at the moment
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch's stubs lack it
    torch.backends.cuda.enable_mem_efficient_sdp(False)  # its backward adds up in any order
    # A round must not fail for one operation that has no repeatable form: torch then says which.
    torch.use_deterministic_algorithms(True, warn_only=True)


def free(device: "torch.device") -> None:
    """Give memory of a GPU that nothing lies in any more back to other processes."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def shares_gpu(engine: str) -> bool:
    """Whether an engine, by its name, computes on the GPU that torch would train on."""
    return engine.endswith(("-cuda", "-tensorrt"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU was too small; torch and ONNX Runtime say so in words only."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(words in text for words in _NO_MEMORY)
    )


def half_kind(device_type: str, *, bfloat16: bool) -> Literal["bfloat16", "float16"] | None:
    """Return the half precision that a device computes in; None: whole precision, on a CPU.

    ``bfloat16``: whether its hardware can. It has the range of float32; float16 has not, and small gradients vanish
    in it unless they are scaled (`grad_scaler`).
    """
    if device_type != "cuda":
        return None
    return "bfloat16" if bfloat16 else "float16"


def _half(device: "torch.device") -> Literal["bfloat16", "float16"] | None:
    import torch

    # torch counts what it can only emulate as supported, which would be slower than whole precision.
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return half_kind(device.type, bfloat16=bfloat16)


def mixed_precision(device: "torch.device") -> AbstractContextManager[None]:
    """Return the context in which a GPU computes in half precision where that is safe; on a CPU it does nothing."""
    import torch

    kind = _half(device)
    return nullcontext() if kind is None else torch.autocast("cuda", dtype=getattr(torch, kind))


def grad_scaler(device: "torch.device") -> "torch.amp.GradScaler":
    """Return what keeps float16 gradients from vanishing; where float16 is not used it changes nothing."""
    import torch

    return torch.amp.GradScaler(device.type, enabled=_half(device) == "float16")
