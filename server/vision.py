"""Asks `shared.vision` for tensors and exports in a child process, so that no server process imports torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import structlog

from shared.contracts.errors import DependencyMissingError, ExitCode, ModelInvalidError, WeightsMissingError
from shared.contracts.training import Recipe

_TIMEOUT = 600.0
_ROOT = Path(__file__).resolve().parents[1]

log = structlog.get_logger(__name__)


def export_base(recipe: Recipe, out: Path, whole: Path) -> str:
    """Write a recipe's initial trainable tensors to ``out`` and its base to ``whole``; return the base's hash."""
    classes = ",".join(recipe.classes)
    cut = () if recipe.frozen_stages is None else ("--frozen-stages", str(recipe.frozen_stages))
    places = ("--out", str(out), "--whole", str(whole))
    printed = _export("base", "--backbone", recipe.backbone, "--classes", classes, *places, *cut)
    return str(json.loads(printed[printed.index("{") :])["base_sha256"])


def export_onnx(recipe: Recipe, delta: Path, out: Path) -> None:
    """Write base and ``delta`` together as one ONNX model to ``out``; the child checks it against torch."""
    _export("onnx", "--delta", str(delta), "--recipe", recipe.model_dump_json(), "--out", str(out))
    if not out.is_file():
        raise ModelInvalidError("The model could not be exported; see the log of the centre.")


def _export(*arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "shared.vision.export", *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelInvalidError(f"The model export did not end within {_TIMEOUT:.0f} s.") from error
    if done.returncode == 0:
        return done.stdout
    log.error("vision.export_failed", command=arguments[0], status=done.returncode, tail=done.stderr[-2000:])
    if done.returncode == ExitCode.WEIGHTS_MISSING:
        raise WeightsMissingError(
            "The backbone's pretrained weights are missing at the centre; docs/backbones.md says where they come from."
        )
    if "ModuleNotFoundError" in done.stderr:
        raise DependencyMissingError(
            "The centre needs torch to export models; install hematovision with its `node` extra."
        )
    raise ModelInvalidError("The model could not be exported; see the log of the centre.")
