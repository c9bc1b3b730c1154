"""Self-supervised warm-up on unlabelled cells, by lightly's losses, and what it brings where labels are few.

The unfrozen stages first learn that looks at one cell belong together (its cached views, turned anew each time), then
the product's loop trains them on few labels. Both arms have the same cells, seeds and steps; the difference is paired.
lightly (MIT) is no dependency of ours: it pulls a training framework that nothing here needs. Where it is wanted,
``pip install --no-deps lightly==1.6.0 lightly_utils`` is enough; without it this part of the bench is left out.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client_node.analysis.detection import detect_white_cells
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell, Origin, cell_hash
from client_node.training import augment
from client_node.training.cache import FeatureCache, Maps
from client_node.training.finder import _pace
from client_node.training.loop import predict, train
from client_node.training.sources import MapSource, Source
from shared.contracts.errors import DependencyMissingError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe
from shared.vision import backbones
from shared.vision.images import load_image
from shared.vision.model import CellModel, build
from shared.vision.trunk import Trunk
from shared.vision.weights import base_sha256, import_timm
from tests.bench.model.evaluate import Row, macro_f1, row
from tests.bench.model.train import CLASSES, cells_of, positions, say

Labels = NDArray[np.int64]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From two looks at the same N cells (N × D each) to how far they are from belonging together."""

RECIPE: Final = Recipe(classes=CLASSES, views=6)
"""The product's own defaults: 112 px, six of seven stages frozen, cached views."""
LOSSES: Final = ("NT-Xent", "Barlow Twins", "VICReg")
COUNTS: Final = (20, 100)
SEEDS: Final = (1, 2, 3)
STEPS: Final = 300
_PAIRS: Final = 128
_RATE: Final = 3e-4
_HEAD_RATE: Final = 2e-3
_DECAY: Final = 1e-4
_WIDTH: Final = 256
_TEMPERATURE: Final = 0.2
_CLIP: Final = 2.0
_DRAWS: Final = 1000


def installed() -> bool:
    """Whether lightly is there."""
    return importlib.util.find_spec("lightly") is not None


def loss_named(name: str) -> Loss:
    """Return one of `LOSSES`; raises `DependencyMissingError` where lightly is not installed."""
    if not installed():
        raise DependencyMissingError("Warm-up needs lightly: pip install --no-deps lightly==1.6.0 lightly_utils")
    import_timm()  # lightly imports torchvision, which loads beside a CPU torch only after this
    from lightly import loss

    made: dict[str, Callable[[], Any]] = {
        "NT-Xent": lambda: loss.NTXentLoss(temperature=_TEMPERATURE),
        "Barlow Twins": loss.BarlowTwinsLoss,
        "VICReg": loss.VICRegLoss,
    }
    found: Loss = made[name]()
    return found


def warm(model: CellModel, source: Source, loss_of: Loss, *, seed: int, steps: int = STEPS) -> float:
    """Train ``model``'s tail in place on unlabelled cells; return the mean loss of the last tenth of the steps.

    Head, finder and trunk stay as they are. The projection that the loss looks at is thrown away, as in SimCLR
    (Chen et al. 2020). The same seed gives the same tail on the same machine.
    """
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    features = model.entry.feature_size
    projection = nn.Sequential(
        nn.Linear(features, _WIDTH, bias=False), nn.BatchNorm1d(_WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH // 2)
    )
    groups = [
        {"params": list(model.tail.parameters()), "lr": _RATE},
        {"params": list(projection.parameters()), "lr": _HEAD_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, steps))
    losses = []
    for step in range(steps):
        chosen = random.choice(len(source), min(_PAIRS, len(source)), replace=False)
        one, other = (projection(model.features(source.draw(chosen, random))) for _ in range(2))
        loss = loss_of(one, other)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(model.tail.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            say(f"warm-up: step {step + 1} of {steps}, loss {losses[-1]:.3f}")
    return float(np.mean(losses[-max(1, steps // 10) :]))


def unlabelled(home: Path, sources: Sequence[str]) -> list[LabelledCell]:
    """Return what a site has before anybody labelled it, of training groups: cell images, and what is proposed in
    fields. Their class is not to be looked at.
    """
    catalogue = Catalogue(home)
    found = [cell for source in sources for cell in cells_of(home, "train", source) if cell.box is None]
    for field in catalogue.fields(split="train"):
        if field.source in sources:
            found += [
                LabelledCell(
                    cell_hash(field.sha256, box), field.path, box, CellClass.UNIDENTIFIED, field.source, field.group,
                    Origin.IMPORT, field.site, field.split,
                )
                for box in detect_white_cells(load_image(field.path))
            ]  # fmt: skip
    return found


def few(labels: Labels, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the places of at most ``count`` cells of each class, drawn at random."""
    chosen = [random.permutation(np.flatnonzero(labels == position))[:count] for position in range(len(CLASSES))]
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, slots=True)
class Cached:
    """Cells of a split with the frozen trunk's maps of their views."""

    cells: list[LabelledCell]
    maps: Maps
    labels: Labels


class Looks:
    """The frozen trunk's maps of cells, on disk below ``folder``."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        model, trunks = started(recipe, 0), list[Trunk]()

        def trunk() -> Trunk:
            if not trunks:
                trunks.append(Trunk(model, recipe.input_size))
            return trunks[0]

        self._views = recipe.views
        self._cache = FeatureCache(
            folder, model, base_sha256=base_sha256(backbones.get(recipe.backbone)), size=recipe.input_size,
            strength=augment.STRENGTHS[recipe.augmentation], trunk=trunk,
        )  # fmt: skip

    def of(self, cells: Sequence[LabelledCell], *, views: int | None = None, labelled: bool = True) -> Cached:
        """Return the cells that can be read, with their maps; without labels where these are not to be known."""
        kept, maps = self._cache.load(cells, views or self._views, between=lambda: None)
        return Cached(kept, maps, positions(kept) if labelled else np.zeros(len(kept), np.int64))


def started(recipe: Recipe, seed: int) -> CellModel:
    """Return a fresh model on the pretrained base."""
    return build(recipe.backbone, len(recipe.classes), frozen_stages=recipe.frozen_stages, seed=seed)


def said(
    recipe: Recipe, tail: dict[str, Tensor] | None, train_on: Cached, ask: Cached, *, count: int, seed: int
) -> Labels:
    """Return the classes of ``ask`` by a model that learnt from ``count`` cells a class, from ``tail`` if given."""
    model = started(recipe, seed)
    if tail is not None:
        model.tail.load_state_dict(tail)
    chosen = few(train_on.labels, count, np.random.default_rng(seed))
    train(model, MapSource(train_on.maps[chosen]), train_on.labels[chosen], recipe, seed=seed, between=lambda: None)
    logits, _ = predict(model, MapSource(ask.maps), between=lambda: None)
    return np.asarray(logits.argmax(axis=1), np.int64)


def gain(
    truth: Labels, groups: Sequence[str], without: Sequence[Labels], warmed: Sequence[Labels]
) -> tuple[float, float, float]:
    """Return (mean difference of macro-F1 over the seeds, its 95 % interval), by bootstrap over whole groups and over
    seeds; the same cells and seeds stand on both sides.
    """
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    places = [np.flatnonzero(members == group) for group in range(members.max() + 1)]
    random = np.random.default_rng(0)

    def difference(rows: NDArray[np.int64], seeds: Sequence[int]) -> float:
        pairs = [(macro_f1(truth[rows], warmed[k][rows]), macro_f1(truth[rows], without[k][rows])) for k in seeds]
        return float(np.mean([one - other for one, other in pairs]))

    draws = [
        difference(
            np.concatenate([places[group] for group in random.integers(0, len(places), len(places))]),
            random.integers(0, len(without), len(without)).tolist(),
        )
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return difference(np.arange(len(truth)), range(len(without))), float(low), float(high)


def warmup_rows(
    work: Path, home: Path, *, recipe: Recipe = RECIPE, losses: Sequence[str] = LOSSES[:1],
    counts: Sequence[int] = COUNTS, steps: int = STEPS,
) -> list[Row]:  # fmt: skip
    """Return macro-F1 on validation groups with few labels, without and with warm-up, and the paired difference.

    Without lightly there are none: a line of progress says so.
    """
    if not installed():
        say("warm-up: left out, lightly is not installed (pip install --no-deps lightly==1.6.0 lightly_utils)")
        return []
    looks = Looks(work / "warmup", recipe)
    free = looks.of(unlabelled(home, ("pbc", "bccd")), labelled=False)
    tails = {}
    for name in losses:
        model = started(recipe, 0)
        loss = warm(model, MapSource(free.maps), loss_named(name), seed=1, steps=steps)
        say(f"warm-up: {name}, loss {loss:.3f} on {len(free.cells)} unlabelled cells")
        tails[name] = model.tail.state_dict()
    rows = []
    for source, numbers in (("pbc", counts), ("bccd", (1000,))):
        known, asked = looks.of(cells_of(home, "train", source)), looks.of(cells_of(home, "val", source), views=1)
        for count in numbers:
            rows += _compared(recipe, tails, known, asked, count, source.upper())
    return rows


def _compared(
    recipe: Recipe, tails: dict[str, dict[str, Tensor]], known: Cached, asked: Cached, count: int, source: str
) -> list[Row]:
    name = (
        f"{source}, {count} labels a class" if count < len(known.cells) else f"{source}, its {len(known.cells)} labels"
    )
    groups = [cell.group for cell in asked.cells]

    def by_seeds(tail: dict[str, Tensor] | None) -> list[Labels]:
        return [said(recipe, tail, known, asked, count=count, seed=seed) for seed in SEEDS]

    without = by_seeds(None)
    rows = [_mean(f"{name}: macro-F1 on validation groups, without warm-up", asked.labels, without)]
    for loss, tail in tails.items():
        warmed = by_seeds(tail)
        value, low, high = gain(asked.labels, groups, without, warmed)
        rows += [
            _mean(f"{name}: macro-F1 on validation groups, after warm-up by {loss}", asked.labels, warmed),
            row(f"{name}: gain in macro-F1 by {loss}, paired", value, low, high, len(groups), goal=None),
        ]
        say(f"warm-up: {name}, {loss}: {value:+.3f} ({low:+.3f} to {high:+.3f})")
    return rows


def _mean(measure: str, truth: Labels, answers: Sequence[Labels]) -> Row:
    """Return the mean over the seeds, with the least and greatest of them."""
    values = [macro_f1(truth, answer) for answer in answers]
    return row(f"{measure} (least–greatest of {len(values)} seeds)", float(np.mean(values)), min(values), max(values),
               len(truth), goal=None)  # fmt: skip
