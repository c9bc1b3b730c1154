"""The machine that figures were measured on, in words."""

import os
import platform
from pathlib import Path
from typing import Final

import torch

from shared.vision.device import runs_on, torch_device

_VECTOR: Final = (
    "avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip


def cpu_flags() -> str:
    """Return the processor's name and those of its vector instructions that matter for INT8."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    facts = dict(part.split(":", 1) for line in text.splitlines() if ":" in line and (part := line.replace("\t", "")))
    words = (facts.get("flags") or facts.get("Features") or "").split()
    return f"{facts.get('model name', platform.machine()).strip()}: {' '.join(w for w in _VECTOR if w in words)}"


def device() -> str:
    """Return what trained and what ran the ONNX files."""
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch_device().type != "cuda":
        return f"{cpu_flags()}; {cores}. No GPU was at hand: its speed is not measured."
    name, runtime = torch.cuda.get_device_name(), runs_on().removesuffix("ExecutionProvider")
    return (
        f"{cpu_flags()}; {cores}. Training on {name} with mixed precision (AMP) and channels-last maps; "
        f"ONNX Runtime by {runtime}."
    )
