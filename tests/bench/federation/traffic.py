"""Bytes of a round, and what accuracy they buy."""

from typing import Final

import numpy as np

from server.federation.recipe import SMALL
from shared.vision.model import build
from tests.bench.federation.arm import Arm
from tests.bench.federation.arms import Played, played, seconds
from tests.bench.federation.chart import Axis, lines_svg
from tests.bench.federation.codecs import Codec
from tests.bench.federation.figures import over_seeds
from tests.bench.federation.skew import CELLS, federated
from tests.bench.model.bench import Bench
from tests.bench.model.rows import row
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES
from tests.bench.model.steps import Json

_ROUNDS: Final = 10
_GOAL: Final = 0.20
_QUICK: Final = (Codec.FP32, Codec.FP16, Codec.PACKED, Codec.COARSE_FEEDBACK)
_USUAL: Final = "default recipe, packed"
_FEWER: Final = ("default recipe but one stage more frozen, packed", (("frozen_stages", 6),))


def _seeds(*, quick: bool) -> tuple[int, ...]:
    return (0,) if quick else (0, 1, 2)


def arms(*, quick: bool) -> dict[str, list[Arm]]:
    """Return the forms by name, a training for each seed; the default run is played elsewhere."""
    found: dict[str, list[Arm]] = {
        _USUAL: [federated(seed, quick=quick) for seed in _seeds(quick=quick)],
        _FEWER[0]: [_arm(seed, Codec.PACKED, _FEWER[1], quick=quick) for seed in _seeds(quick=quick)],
    }
    small = tuple(SMALL.items())
    for codec in _QUICK if quick else Codec:
        found[f"small recipe, {codec.value}"] = [_arm(seed, codec, small, quick=quick) for seed in _seeds(quick=quick)]
    return found


def _arm(seed: int, codec: Codec, changed: tuple[tuple[str, int], ...], *, quick: bool) -> Arm:
    usual = federated(seed, quick=quick)
    return Arm(usual.sites, (_ROUNDS,), recipe=(*usual.recipe, *changed), codec=codec)


def measure(bench: Bench) -> Measured:
    """Play them, and count what travels."""
    forms = arms(quick=bench.quick)
    flat = [arm for some in forms.values() for arm in some]
    found = dict(zip(flat, played(bench, flat), strict=True))
    whole = 2 * full_model_bytes()
    usual = found[forms[_USUAL][0]]
    rows = [
        row("bytes a round and hospital, full-model FedAvg in fp32, MB", whole / 1e6, None, None, 1, goal=None),
        row("bytes a round and hospital, the default run, MB", _bytes(usual) / 1e6, None, None, 1, goal=None),
        row("the same, share of full-model FedAvg", _bytes(usual) / whole, None, None, 1, goal=_GOAL, at_most=True),
    ]
    series = {}
    for name, some in forms.items():
        runs = [found[arm] for arm in some]
        values = [run.f1(look=arm.looks.index(_ROUNDS)) for run, arm in zip(runs, some, strict=True)]
        size = _bytes(runs[0])
        rows.append(over_seeds(f"{name}: macro-F1 after {_ROUNDS} rounds", values))
        rows.append(row(f"{name}: MB a round and hospital", size / 1e6, None, None, 1, goal=None))
        short = name.replace("in steps ten times as large", "ten times as coarse")
        series[f"{short}: {size / whole:.1%}"] = [(size / 1e6, float(np.mean(values)))]
    low = min(points[0][1] for points in series.values())
    across = Axis("MB a round and hospital", 0, max(points[0][0] for points in series.values()) * 1.1)
    up = Axis("macro-F1 on test groups", int(low * 50) / 50 - 0.02, min(1.0, low + 0.1))
    plot = lines_svg(
        series, "Accuracy against bytes (share of full FedAvg)", across=across, up=up, name="federation-bytes"
    )
    return Measured(rows, plots={"federation-bytes": plot})


def full_model_bytes() -> int:
    """Return the bytes of all parameters of the default network in fp32, one way."""
    model = build(federated(0, quick=True).chosen_recipe().backbone, len(CLASSES))
    return 4 * sum(value.numel() for value in model.parameters())


def _bytes(run: Played) -> int:
    return run.traffic["down"] + run.traffic["up"]


def _facts(bench: Bench) -> Json:
    return [arm.facts(None) for some in arms(quick=bench.quick).values() for arm in some]


def _own(*, quick: bool) -> list[Arm]:
    return [arm for some in arms(quick=quick).values() for arm in some if arm.looks == (_ROUNDS,)]


SECTION: Final = Section(
    name="traffic",
    title="Bytes",
    measure=measure,
    version=3,
    seconds=(seconds(_own(quick=True), CELLS), seconds(_own(quick=False), CELLS)),
    also=_facts,
    method=(
        "The default run of three skewed hospitals: down and up together, as they travel (request and answer add about "
        "3 kB). Full-model FedAvg: every parameter of the same network in fp32, both ways. Packed, as a launch does: "
        "both ways in levels of what differs from the other side's, about 5.4 bits a value (docs/adr/0011). Forms are "
        "compared with each other by the small recipe (docs/recipe.md). With error feedback a hospital adds what its "
        "last rounding left over."
    ),
)
