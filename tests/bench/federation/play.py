"""Plays an arm in one process: the trainer's loop on cached maps, the centre's own wire form, checks and strategies."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell
from client_node.models.personal import own_head, seen
from client_node.training.loop import predict, train
from client_node.training.model_store import set_tensors
from client_node.training.sources import MapSource
from deploy.simulate.partition import Sharing, share_out
from server.federation.strategies.build import build as build_strategy
from server.federation.strategies.port import Result, Sent, Strategy
from server.federation.strategies.tensors import Tensors
from server.federation.strategies.updates import verify
from shared.contracts.errors import HematovisionError
from shared.contracts.training import Recipe
from shared.packing import pretrained
from shared.vision.model import CellModel, build
from tests.bench.federation.arm import FOLDS, STRENGTH, Arm, Attack, Sites
from tests.bench.federation.codecs import Sender, sent_down
from tests.bench.federation.kept import Kept, kept_in
from tests.bench.model.bench import Bench
from tests.bench.model.folds import assigned
from tests.bench.model.frozen import Frozen
from tests.bench.model.stages import CLASSES, positions
from tests.bench.model.steps import Json

Cells = list[LabelledCell]
_ONE_VIEW: Final = 1


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A laboratory's cells by use."""

    train: Cells
    val: Cells
    test: Cells


@dataclass(slots=True)
class _Hospital:
    """A hospital in an arm: its training cells and its side of the wire."""

    name: str
    source: MapSource
    labels: NDArray[np.int64]
    sender: Sender
    attack: Attack | None = None
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


def laboratory(bench: Bench, name: str, fold: int | None) -> Laboratory:
    """Return a laboratory's cells; with a ``fold`` of BCCD that one is judged, the next validates, the others train."""
    if name == "pbc" or fold is None:
        return Laboratory(*(bench.cells(name, split) for split in ("train", "val", "test")))
    cells = bench.cells(name, "train", "val", "test")
    where = (assigned(cells, FOLDS) - fold) % FOLDS
    test, val = ([cell for cell, place in zip(cells, where, strict=True) if place == number] for number in (0, 1))
    return Laboratory([cell for cell, place in zip(cells, where, strict=True) if place > 1], val, test)


def holdings(bench: Bench, sites: Sites) -> list[Cells]:
    """Return the training cells of each hospital."""
    labs = [laboratory(bench, name, sites.fold).train for name in sites.labs]
    if sites.pooled:
        return [[cell for cells in labs for cell in cells]]
    if sites.count:
        parts = share_out(labs[0], sites.count, sharing=Sharing.DIRICHLET, alpha=sites.alpha, seed=sites.seed)
        return parts[: sites.honest]
    return labs


def looks_of(bench: Bench, recipe: Recipe) -> Frozen:
    """Return the cached maps of a recipe's trunk and input size."""
    cut = f"{recipe.backbone}-{recipe.frozen_stages}-{recipe.input_size}-{recipe.augmentation}"
    return Frozen(bench.work / "maps" / cut, recipe, most_views=recipe.views)


def play(bench: Bench, arm: Arm, part: Path | None = None) -> Json:
    """Return what the arm's model says of each laboratory's validation and test cells after each look's round.

    With ``part`` each whole round is kept there, and one that was cut off goes on behind its last;
    whoever has written down the result removes it.
    """
    recipe = arm.chosen_recipe()
    frozen = looks_of(bench, recipe)
    hospitals = [
        _hospital(bench, frozen, arm, number, cells) for number, cells in enumerate(holdings(bench, arm.sites))
    ]
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    fresh: Tensors = {name: value.numpy() for name, value in model.trainable_state().items()}
    base = pretrained(fresh)
    run = (kept_in(part) if part else None) or Kept(fresh)
    _resume(hospitals, run)
    with tempfile.TemporaryDirectory(prefix="hematovision-bench-") as spool:
        strategy = build_strategy(arm.chosen_strategy(), folder=Path(spool))
        for number in range(run.number + 1, arm.rounds + 1):
            begin = time.monotonic()
            sent, down = sent_down(arm.codec, number, run.exact, run.state, base)
            result, up = _round(model, hospitals, recipe.in_round(number, arm.rounds), sent, strategy)
            run.exact, run.state, run.traffic = result.tensors, result.state, {"down": down, "up": up}
            if number in arm.looks:
                set_tensors(model, run.exact)
                run.looks.append({"round": number, "said": _said(bench, frozen, model, arm)})
            run.number, run.seconds = number, run.seconds + time.monotonic() - begin
            if part is not None:
                _keep(hospitals, run, part)
    return {"looks": run.looks, "traffic": run.traffic, "seconds": run.seconds}


def _round(
    model: CellModel, hospitals: Sequence[_Hospital], recipe: Recipe, sent: Sent, strategy: Strategy
) -> tuple[Result, int]:
    """Play a round; return what it comes to, and the bytes of the last hospital's update."""
    aggregation, up = strategy.begin(sent), 0
    for hospital in hospitals:
        update = _trained(model, hospital, recipe, sent)
        up = len(update)
        try:
            aggregation.add(verify(hospital.name, update, sent, examples=len(hospital.labels)))
        except HematovisionError:
            if hospital.attack is None:
                raise  # only what the bad one sends may be refused
    aggregation.close()
    return aggregation.result(), up


def _keep(hospitals: Sequence[_Hospital], run: Kept, part: Path) -> None:
    run.residuals = [hospital.sender.residual for hospital in hospitals]
    run.randoms = [hospital.random.bit_generator.state for hospital in hospitals]
    run.save(part)


def _resume(hospitals: Sequence[_Hospital], run: Kept) -> None:
    for hospital, residual, state in zip(hospitals, run.residuals, run.randoms, strict=False):  # none: a fresh run
        hospital.sender.residual = residual
        hospital.random.bit_generator.state = state


def _hospital(bench: Bench, frozen: Frozen, arm: Arm, number: int, cells: Cells) -> _Hospital:
    kept, maps = frozen.maps(cells)
    bad = arm.attack is not None and number == max(arm.sites.count, len(arm.sites.labs)) - 1
    return _Hospital(
        f"hospital-{number}", MapSource(maps), positions(kept), Sender(arm.codec), arm.attack if bad else None
    )


def _trained(model: CellModel, hospital: _Hospital, recipe: Recipe, sent: Sent) -> bytes:
    """Train a round as `client_node.training.service` does; return the update as it travels."""
    set_tensors(model, sent.as_received)
    train(model, hospital.source, hospital.labels, recipe, seed=recipe.seed * 1000 + sent.number, between=lambda: None)
    trained = {name: value.numpy() for name, value in model.trainable_state().items()}
    if hospital.attack is not None:
        trained = _attacked(hospital, trained, sent)
    return hospital.sender.send(trained, sent)


def _attacked(hospital: _Hospital, trained: Tensors, sent: Sent) -> Tensors:
    received, wrong = sent.as_received, Tensors()
    for name, array in trained.items():
        step = array - received[name]
        if hospital.attack is Attack.RANDOM:
            noise = hospital.random.normal(size=step.shape)
            step = noise * np.linalg.norm(step) / max(float(np.linalg.norm(noise)), 1e-12)
        else:
            step = -step
        wrong[name] = np.asarray(received[name] + STRENGTH * step, np.float32)
    return wrong


def _said(bench: Bench, frozen: Frozen, model: CellModel, arm: Arm) -> Json:
    """Return, by laboratory, what the model calls its cells, and what its own head makes of the test cells."""
    found: dict[str, dict[str, list[int]]] = {}
    for name in ("pbc", "bccd"):
        cells = laboratory(bench, name, arm.sites.fold)
        found[name] = {}
        outputs = {}
        for split, some in (("val", cells.val), ("test", cells.test)):
            kept, logits, features = _outputs(frozen, model, some)
            outputs[split] = seen(kept, logits, features, CLASSES)
            found[name][split] = logits.argmax(axis=1).tolist()
            found[name][f"{split} truth"] = outputs[split].labels.tolist()
        if arm.adapted and name in arm.sites.labs:
            taught = seen(*_outputs(frozen, model, cells.train), CLASSES)
            head, test = own_head(taught, outputs["val"]), outputs["test"]
            own = test.logits if head is None else head.applied(test.logits, test.features)
            found[name]["own"] = own.argmax(axis=1).tolist()
            found[name]["kept"] = [int(head is not None)]
    return found


def _outputs(
    frozen: Frozen, model: CellModel, cells: Sequence[LabelledCell]
) -> tuple[Cells, NDArray[np.float32], NDArray[np.float32]]:
    kept, maps = frozen.maps(cells)
    logits, features = predict(model, MapSource(maps[:, :_ONE_VIEW]), between=lambda: None)
    return kept, logits, features
