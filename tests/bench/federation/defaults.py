"""What a launch starts from: local epochs and the server's step, compared on validation groups at equal epochs."""

from typing import Final

import numpy as np

from tests.bench.federation.arm import Arm, Sites
from tests.bench.federation.arms import played, seconds
from tests.bench.federation.figures import over_seeds
from tests.bench.federation.skew import ALPHA, CELLS, HOSPITALS
from tests.bench.model.bench import Bench
from tests.bench.model.rows import row
from tests.bench.model.section import Measured, Section
from tests.bench.model.steps import Json

_EPOCHS: Final = 20
"""In all: so that every choice costs the hospitals the same."""
_SEEDS: Final = (10, 11)
"""Others than those that the figures are of."""
_LOCAL: Final = (1, 2, 5)
_STEPS: Final = {
    "FedAvg": ("fedavg", ()),
    "server learning rate 1.5": ("fedavgm", (("server_learning_rate", 1.5), ("momentum", 0.0))),
    "momentum 0.3": ("fedavgm", (("momentum", 0.3),)),
    "FedProx 0.01": ("fedprox", (("proximal_mu", 0.01),)),
    "FedAdam": ("fedadam", ()),
}
Numbers = tuple[tuple[str, float], ...]
Choices = dict[str, tuple[str, Numbers, Numbers]]
"""By name: the strategy, its parameters and the recipe."""
_FLAT: Final = ("moving average off", (("ema", 0.0),))


def arms() -> dict[str, list[Arm]]:
    """Return the choices by name, a training for each seed."""
    choices: Choices = {
        f"{epochs} local epochs, FedAvg": ("fedavg", (), (("local_epochs", epochs),)) for epochs in _LOCAL
    }
    for name, (strategy, parameters) in _STEPS.items():
        if name != "FedAvg":
            choices[f"2 local epochs, {name}"] = (strategy, parameters, (("local_epochs", 2),))
    choices[f"2 local epochs, FedAvg, {_FLAT[0]}"] = ("fedavg", (), (("local_epochs", 2), *_FLAT[1]))
    return {
        name: [
            Arm(
                Sites(count=HOSPITALS, alpha=ALPHA, seed=seed),
                (_EPOCHS // int(dict(recipe)["local_epochs"]),),
                recipe=(*recipe, ("seed", seed)),
                strategy=strategy,
                parameters=parameters,
            )
            for seed in _SEEDS
        ]
        for name, (strategy, parameters, recipe) in choices.items()
    }


def measure(bench: Bench) -> Measured:
    """Play them; nothing here looks at a test group."""
    choices = arms()
    flat = [arm for some in choices.values() for arm in some]
    found = dict(zip(flat, played(bench, flat), strict=True))
    rows = [
        over_seeds(f"{name}: validation macro-F1 after {_EPOCHS} epochs", [found[arm].f1(split="val") for arm in some])
        for name, some in choices.items()
    ]
    best = max(rows, key=lambda one: float(one["value"] or 0.0))
    spread = float(np.std([float(one["value"] or 0.0) for one in rows]))
    return Measured(
        [*rows, row("spread of these (standard deviation)", spread, None, None, len(rows), goal=None)],
        [f"The best of these is: {str(best['measure']).partition(':')[0]}."],
    )


def _facts(_: Bench) -> Json:
    return [arm.facts(None) for some in arms().values() for arm in some]


_ALL: Final = [arm for some in arms().values() for arm in some]
SECTION: Final = Section(
    name="defaults",
    title="What a launch starts from",
    measure=measure,
    version=1,
    seconds=(seconds(_ALL, CELLS), seconds(_ALL, CELLS)),
    whole_only=True,
    also=_facts,
    method=(
        "Three skewed hospitals as above, with other seeds; 20 epochs at each hospital in all, however many of them a "
        "round has. Judged on validation groups alone."
    ),
)
