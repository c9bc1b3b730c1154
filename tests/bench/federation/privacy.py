"""What privacy costs: image-level DP at ε = 8, δ = 1e-5, against the usual recipe without noise, on real cells."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from client_node.datasets.labelled import LabelledCell
from client_node.training.accounting import Noisy, noise_for
from client_node.training.model_store import get_tensors, set_tensors
from client_node.training.privacy import steps_an_epoch
from client_node.training.private_loop import CENTRE, train_privately
from client_node.training.sources import MapSource
from server.federation.privacy import RECIPE as PRIVATE
from server.federation.privacy import RunPrivacy
from server.federation.recipe import make_recipe
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import wire_tensors
from server.federation.strategies.updates import verify
from shared.contracts.training import Recipe
from shared.vision.model import CellModel, build
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.frozen import Frozen
from tests.bench.model.rows import Row, figure, macro_f1
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES, positions

Site = Sequence[LabelledCell]
Trains = Callable[[CellModel, int, int], None]
"""Trains a model in place at a hospital (by number) in a round."""

PROMISE: Final = RunPrivacy()
"""What a launch starts from: ε = 8, δ = 1e-5, clip 1."""
ROUNDS: Final = 3
HOSPITALS: Final = 3
_USUAL: Final = make_recipe(CLASSES, {})
_NOISY: Final = make_recipe(CLASSES, {}, PRIVATE)
_GOAL: Final = 0.08


def privacy_rows(bench: Bench) -> list[Row]:
    """Return macro-F1 on PBC's test groups with and without noise, and what is lost, for one hospital and for three."""
    cells, test = bench.cells("pbc", "train"), bench.cells("pbc", "test")
    rows: list[Row] = []
    for hospitals in (1, HOSPITALS):
        sites = [cells[number::hospitals] for number in range(hospitals)]
        name = "one hospital" if hospitals == 1 else f"{hospitals} hospitals"
        say(f"privacy: {name}, without noise")
        usual = answers_of(_usual(bench, sites), _USUAL, test)
        say(f"privacy: {name}, ε = {PROMISE.epsilon:g}")
        noisy = answers_of(_noisy(bench, sites), _NOISY, test)
        rows += _compared(f"{name}, {len(cells)} cells in all, {ROUNDS} rounds", usual, noisy)
    return rows


def _compared(name: str, usual: Answers, noisy: Answers) -> list[Row]:
    def f1(of: Answers) -> Callable[[NDArray[np.int64]], float]:
        return lambda some: macro_f1(of.labels[some], of.logits[some].argmax(axis=1))

    without, private = f1(usual), f1(noisy)
    count, epsilon = len(usual.labels), f"ε = {PROMISE.epsilon:g}, δ = {PROMISE.delta:g}"
    return [
        figure(f"{name}: macro-F1 without noise", without, count),
        figure(f"{name}: macro-F1, image-level DP, {epsilon}", private, count),
        figure(
            f"{name}: macro-F1 lost to image-level DP, {epsilon}",
            lambda some: without(some) - private(some),
            count,
            goal=_GOAL,
            at_most=True,
        ),
    ]


def _usual(bench: Bench, sites: Sequence[Site]) -> CellModel:
    frozen = Frozen(bench.work / "maps", _USUAL, most_views=_USUAL.views)

    def trains(model: CellModel, site: int, number: int) -> None:
        head = _USUAL.head_epochs if number == 1 else 0
        frozen.trained(sites[site], seed=number, start=model, head_epochs=head)

    return _rounds(_USUAL, sites, trains)


def _noisy(bench: Bench, sites: Sequence[Site]) -> CellModel:
    frozen = Frozen(bench.work / "maps", _NOISY, most_views=_NOISY.views)
    seeds = np.random.default_rng(1)  # the product takes the system's: a bench shall give the same figures again

    def trains(model: CellModel, site: int, number: int) -> None:
        kept, maps = frozen.maps(sites[site])
        units = [np.asarray([place], np.int64) for place in range(len(kept))]
        train_privately(
            model,
            MapSource(maps),
            positions(kept),
            units,
            _NOISY,
            noise_of(_NOISY, len(units), ROUNDS),
            clip=PROMISE.clip,
            between=lambda: None,
            entropy=lambda: int(seeds.integers(0, 2**63)),
        )

    return _rounds(_NOISY, sites, trains)


def noise_of(recipe: Recipe, units: int, rounds: int) -> Noisy:
    """Return how a hospital of so many images trains one of ``rounds``, as its accountant says."""
    rate, steps = min(1.0, recipe.batch_size / units), recipe.local_epochs * steps_an_epoch(units, recipe.batch_size)
    before = [Noisy(CENTRE.noise_multiplier, CENTRE.sample_rate, rounds)]
    noise = noise_for(PROMISE.epsilon, PROMISE.delta, sample_rate=rate, steps=steps * rounds, before=before)
    if noise is None:
        raise ValueError("no noise keeps the promise")
    return Noisy(noise, rate, steps)


def _rounds(recipe: Recipe, sites: Sequence[Site], trains: Trains) -> CellModel:
    """Rounds as the centre conducts them, through its wire form, its checks and FedAvg."""
    model = build(recipe.backbone, len(CLASSES), frozen_stages=recipe.frozen_stages)
    exact = {name: value.numpy() for name, value in model.trainable_state().items()}
    for number in range(1, ROUNDS + 1):
        sent = Sent.of(number, wire_tensors(exact), exact)
        average = FedAvg().begin(sent)
        for site, cells in enumerate(sites):
            set_tensors(model, sent.tensors)
            trains(model, site, number)
            average.add(verify(str(site), save(get_tensors(model, sent.tensors)), sent, examples=len(cells)))
        average.close()
        exact = average.result().tensors
    set_tensors(model, exact)
    return model


def _measure(bench: Bench) -> Measured:
    return Measured(privacy_rows(bench))


SECTION: Final = Section(
    name="privacy",
    title="Privacy",
    measure=_measure,
    version=2,
    seconds=(0, 700),
    whole_only=True,
    method=(
        "DP-SGD with each hospital's own accountant: the whole run keeps ε = 8 at δ = 1e-5 for every image. Private "
        "and usual runs each have the recipe that a launch starts from. On PBC's test groups, which nothing was "
        "chosen by."
    ),
)
