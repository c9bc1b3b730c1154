"""A training that was cut off goes on from its last whole round."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from server.federation.strategies.tensors import Tensors
from tests.bench.model.steps import Json


@dataclass(slots=True)
class Kept:
    """What the rounds so far have come to; everything that the next one depends on."""

    exact: Tensors
    """The model."""
    state: Tensors = field(default_factory=Tensors)
    """The strategy's."""
    residuals: list[Tensors] = field(default_factory=list)
    """What each hospital's roundings left over."""
    randoms: list[Json] = field(default_factory=list)
    """States of the hospitals' random generators."""
    number: int = 0
    """Rounds played."""
    looks: list[Json] = field(default_factory=list)
    traffic: dict[str, int] = field(default_factory=lambda: {"down": 0, "up": 0})
    seconds: float = 0.0

    def save(self, file: Path) -> None:
        """Write it, whole or not at all."""
        groups = {"exact": self.exact, "state": self.state}
        groups |= {str(number): tensors for number, tensors in enumerate(self.residuals)}
        flat = {f"{group}/{name}": value for group, some in groups.items() for name, value in some.items()}
        facts = {
            "hospitals": len(self.residuals), "randoms": self.randoms, "number": self.number, "looks": self.looks,
            "traffic": self.traffic, "seconds": self.seconds,
        }  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        save_file(
            {name: np.array(value, order="C") for name, value in flat.items()}, fresh, {"kept": json.dumps(facts)}
        )
        fresh.replace(file)


def kept_in(file: Path) -> Kept | None:
    """Return what ``file`` holds; None: there is none, or none that can be read."""
    try:
        with safe_open(file, "numpy") as opened:
            facts = json.loads(opened.metadata()["kept"])
            flat = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    groups = {name: Tensors() for name in ("exact", "state", *map(str, range(facts.pop("hospitals"))))}
    for name, value in flat.items():
        group, _, tensor = name.partition("/")
        groups[group][tensor] = value
    exact, state, *residuals = groups.values()
    return Kept(exact, state, residuals, **facts)
