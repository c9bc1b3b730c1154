"""``python -m shared.vision.export``: the first tensors of a run, and a trained model as one ONNX file."""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from shared.contracts.errors import ExitCode, HematovisionError, ModelInvalidError, UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision.engine import OnnxEngine, Outputs
from shared.vision.model import CellModel, build
from shared.vision.simplify import fold_padding
from shared.vision.torch_engine import load_model
from shared.vision.weights import base_sha256, whole_base

OPSET = 18
TOLERANCE = 1e-3
"""Largest difference of a logit between torch and ONNX Runtime that is let pass."""


def export_base(
    backbone: str,
    classes: int,
    out: Path,
    *,
    frozen_stages: int | None = None,
    seed: int = 0,
    whole: Path | None = None,
) -> dict[str, str | int]:
    """Write the trainable tensors that a run starts from; return the base's hash, their number and bytes.

    ``whole``: where to write all of the base as well, for nodes that have no weights of their own.
    """
    model = build(backbone, classes, frozen_stages=frozen_stages, seed=seed)
    state = model.trainable_state()
    body = save(state)
    out.write_bytes(body)
    if whole is not None:
        whole.write_bytes(whole_base(model.entry))
    return {"base_sha256": base_sha256(model.entry), "tensors": len(state), "bytes": len(body)}


def trace(module: nn.Module, size: int, out: Path, outputs: tuple[str, ...]) -> None:
    """Write ``module`` (images N × 3 × size × size → ``outputs``) as one ONNX file with a free batch size."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter announces its successor, which is far slower
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, size, size),),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)},
        )
    fold_padding(out)


def export_onnx(model: CellModel, size: int, out: Path) -> float:
    """Write ``model`` as one ONNX file with a free batch size; return the largest difference of an output from torch.

    Raises `ModelInvalidError`, leaving no file, if that is `TOLERANCE` or more.
    """
    part = out.with_name(f"{out.name}.part")
    trace(model, size, part, Outputs._fields)
    try:
        onnx.checker.check_model(str(part))
        difference = _difference(model, part, size)
        if not difference < TOLERANCE:
            raise ModelInvalidError("The exported model does not compute what the trained one does; not exported.")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return difference


def _difference(model: CellModel, file: Path, size: int) -> float:
    images = np.random.default_rng(0).normal(0.0, 0.6, (3, 3, size, size)).astype(np.float32)
    found = OnnxEngine(file, model.head.out_features).run(images)
    with torch.inference_mode():
        logits, _, objects = model(torch.from_numpy(images))
    return max(float(np.abs(found.logits - logits.numpy()).max()), float(np.abs(found.objects - objects.numpy()).max()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shared.vision.export", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base", help="the trainable tensors that a run starts from")
    base.add_argument("--backbone", required=True)
    base.add_argument("--classes", required=True, help="comma-separated, in the head's order")
    base.add_argument("--frozen-stages", type=int, help="as in the recipe")
    base.add_argument("--seed", type=int, default=0)
    base.add_argument("--out", type=Path, required=True)
    base.add_argument("--whole", type=Path, help="write the whole base here as well")
    network = commands.add_parser("onnx", help="a trained model as one ONNX file")
    network.add_argument("--delta", type=Path, required=True)
    network.add_argument("--recipe", required=True, help="JSON")
    network.add_argument("--out", type=Path, required=True)
    return parser


def _run(arguments: argparse.Namespace) -> dict[str, str | int | float]:
    if arguments.command == "base":
        try:
            classes = tuple(CellClass(name) for name in arguments.classes.split(","))
        except ValueError as error:
            raise UsageError("--classes names a class that the ontology does not have.") from error
        return dict(
            export_base(
                arguments.backbone,
                len(classes),
                arguments.out,
                frozen_stages=arguments.frozen_stages,
                seed=arguments.seed,
                whole=arguments.whole,
            )
        )
    try:
        recipe = Recipe.model_validate_json(arguments.recipe)
    except ValidationError as error:
        raise UsageError("--recipe is not a recipe in JSON.") from error
    difference = export_onnx(load_model(arguments.delta, recipe), recipe.input_size, arguments.out)
    return {"out": str(arguments.out), "bytes": arguments.out.stat().st_size, "difference": difference}


def main(argv: list[str] | None = None) -> int:
    """Run one export and print its facts as one line of JSON; return the exit code."""
    try:
        facts = _run(_parser().parse_args(argv))
    except HematovisionError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    sys.stdout.write(json.dumps(facts) + "\n")
    return int(ExitCode.OK)


if __name__ == "__main__":
    raise SystemExit(main())
