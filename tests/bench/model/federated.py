"""The default recipe that hospitals run: how good it is, what it does about rare classes, how many looks it needs."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from safetensors.numpy import save

from client_node.datasets.labelled import LabelledCell
from client_node.training import augment
from client_node.training.model_store import get_tensors, set_tensors
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import wire_tensors
from server.federation.strategies.updates import verify
from shared.contracts.ontology import CellClass
from shared.contracts.training import Balance
from shared.vision.model import CellModel, build
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.figures import CORE, among_five
from tests.bench.model.frozen import SEEDS, Frozen
from tests.bench.model.rows import Row, figure, macro_f1, share
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES, FEDERATED

_ROUNDS: Final = 3
_RARE: Final = (CellClass.EOSINOPHIL, CellClass.BASOPHIL, CellClass.IMMATURE_GRANULOCYTE)
_RARITY: Final = 8
"""One of so many cells of the rare classes is kept: about as rare beside neutrophils as in blood."""
_VIEWS: Final = (1, 4, 8)


def measure(bench: Bench) -> Measured:
    """Measure the path of a federated run in one process."""
    seeds = SEEDS[:1] if bench.quick else SEEDS
    frozen = Frozen(bench.work / "maps", FEDERATED, most_views=max(_VIEWS))
    rows = _run(bench, frozen)
    balanced, note = _balance(bench, frozen, seeds)
    return Measured([*rows, *balanced, *_views(bench, frozen, seeds)], [note])


def _run(bench: Bench, frozen: Frozen) -> list[Row]:
    """Two hospitals, one a laboratory, for the default number of rounds; averaged as the centre does."""
    say(f"federated: {_ROUNDS} rounds of two hospitals")
    sites = {source: bench.cells(source, "train") for source in ("pbc", "bccd")}
    model = build(FEDERATED.backbone, len(CLASSES), frozen_stages=FEDERATED.frozen_stages)
    exact = {name: value.numpy() for name, value in model.trainable_state().items()}
    for number in range(1, _ROUNDS + 1):
        sent = Sent.of(number, wire_tensors(exact), exact)
        average = FedAvg().begin(sent)
        for source, cells in sites.items():
            set_tensors(model, sent.tensors)
            frozen.trained(cells, seed=number, start=model)
            average.add(verify(source, save(get_tensors(model, sent.tensors)), sent, examples=len(cells)))
        average.close()
        exact = average.result().tensors
    set_tensors(model, exact)
    pooled = frozen.trained([cell for cells in sites.values() for cell in cells], local_epochs=15)
    rows = []
    for name, made in ((f"federated, {_ROUNDS} rounds", model), ("pooled, the same 15 epochs", pooled)):
        test = answers_of(made, FEDERATED, bench.cells("pbc", "test"))
        core = test.of(np.isin(test.labels, CORE))
        smaller = answers_of(made, FEDERATED, bench.cells("bccd", "test"))
        rows += [
            share(f"default recipe, {name}: PBC five classes (among the five)", among_five(core) == core.labels),
            _f1(f"default recipe, {name}: PBC eight classes, macro-F1", [test]),
            share(f"default recipe, {name}: BCCD test groups", among_five(smaller) == smaller.labels),
        ]
    return rows


def skewed(cells: Sequence[LabelledCell]) -> list[LabelledCell]:
    """Return ``cells`` with one of `_RARITY` of the rare classes."""
    seen = Counter[CellClass]()
    kept = []
    for cell in sorted(cells, key=lambda cell: cell.hash):
        if cell.cls not in _RARE or seen[cell.cls] % _RARITY == 0:
            kept.append(cell)
        seen[cell.cls] += 1
    return kept


def _balance(bench: Bench, frozen: Frozen, seeds: Sequence[int]) -> tuple[list[Row], str]:
    """Each measure for rare classes on skewed cells: compared on validation groups, the best and none on test ones."""
    cells = skewed(bench.cells("pbc", "train"))
    validation, test = bench.cells("pbc", "val"), bench.cells("pbc", "test")
    made: dict[Balance, list[CellModel]] = {}
    rows, scores = [], {}
    for balance in Balance:
        say(f"federated: balance {balance.value}")
        made[balance] = [frozen.trained(cells, seed=seed, balance=balance) for seed in seeds]
        found = [answers_of(model, FEDERATED, validation) for model in made[balance]]
        rows.append(_f1(f"rare classes, {balance.value}: validation macro-F1", found))
        rows.append(_rare(f"rare classes, {balance.value}: validation recall of the rare", found))
        scores[balance] = float(rows[-2]["value"] or 0.0)
    best = max(scores, key=lambda one: scores[one])
    for balance, name in ((best, "the best on validation"), (Balance.NONE, "none")):
        found = [answers_of(model, FEDERATED, test) for model in made[balance]]
        rows.append(_f1(f"rare classes, {name}: test macro-F1", found))
        rows.append(_rare(f"rare classes, {name}: test recall of the rare", found))
    counts = Counter(cell.cls.info.name for cell in cells)
    have = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return rows, f"The best on validation groups for rare classes is {best.value}. Learnt from: {have}."


def _views(bench: Bench, frozen: Frozen, seeds: Sequence[int]) -> list[Row]:
    """How many cached looks an image are worth having, on every second cell."""
    cells = sorted(bench.cells("pbc", "train"), key=lambda cell: cell.hash)[::2]
    rows = []
    for views in _VIEWS:
        say(f"federated: {views} cached looks")
        made = [frozen.trained(cells, seed=seed, views=views, local_epochs=10) for seed in seeds]
        for split, name in (("val", "validation"), ("test", "test")):
            found = [answers_of(model, FEDERATED, bench.cells("pbc", split)) for model in made]
            rows.append(_f1(f"cached looks, K = {views}: {name} macro-F1", found))
    return rows


def _f1(name: str, found: Sequence[Answers]) -> Row:
    return _mean(name, found, lambda truth, said: macro_f1(truth, said))


def _rare(name: str, found: Sequence[Answers]) -> Row:
    rare = [CLASSES.index(cls) for cls in _RARE]
    kept = [one.of(np.isin(one.labels, rare)) for one in found]
    return _mean(name, kept, lambda truth, said: float((truth == said).mean()))


def _mean(name: str, found: Sequence[Answers], of: Callable[..., float]) -> Row:
    """Return the mean of a figure over trainings on the same cells, with the interval over cells."""
    truth, said = found[0].labels, [one.logits.argmax(axis=1) for one in found]
    return figure(name, lambda some: float(np.mean([of(truth[some], one[some]) for one in said])), len(truth))


SECTION: Final = Section(
    name="federated",
    title="The recipe that hospitals run",
    measure=measure,
    version=1,
    seconds=(240, 500),
    whole_only=True,
    also=lambda bench: [FEDERATED.model_dump(mode="json"), augment.VERSION, 1 if bench.quick else len(SEEDS)],
    method=(
        "The product's defaults: 112 px, six of seven stages frozen, cached looks, five epochs a round; by eager "
        "torch. Two hospitals, one each laboratory, averaged by the centre's own code. For rare classes seven eighths "
        "of the eosinophils, basophils and immature granulocytes are taken away; means over seeds, intervals over "
        "cells."
    ),
)
