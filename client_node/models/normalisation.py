"""Where a site keeps the scale and shift of a model's channels: between rounds, and between runs of the same base.

``H/training/normalisation/<key>/<run>.r<round>.safetensors``, the key made of all that the tensors depend on. What
a round has learnt of them is sent back with its update, for the average; see docs/personalisation.md.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from shared.contracts.training import Recipe
from shared.crypto.pki import write_private
from shared.space import space_guard
from shared.vision import backbones

Arrays = dict[str, NDArray[np.float32]]

_ROUNDS: Final = 2
"""Of a run; one that is asked for again begins from the one before."""
_RUNS: Final = 4
_NOISED: Final = "noised"
"""In a file's metadata, where what it holds was learnt with differential privacy."""

log = structlog.get_logger(__name__)


class OwnNormalisation:
    """What the node at ``home`` keeps for models of one base, cut, input and classes."""

    def __init__(self, home: Path, recipe: Recipe, base_sha256: str) -> None:
        entry = backbones.get(recipe.backbone)
        frozen = entry.trunk_blocks if recipe.frozen_stages is None else recipe.frozen_stages
        facts = (base_sha256, recipe.backbone, frozen, recipe.input_size, tuple(map(str, recipe.classes)))
        self._home = Path(home)
        self._folder = self._home / "training" / "normalisation" / sha256(repr(facts).encode()).hexdigest()[:24]

    def before(self, run_key: str, number: int, *, noised: bool = False) -> Arrays | None:
        """Return what the run's last round before round ``number`` left; None: it is this site's first.

        ``noised``: the last of those whose training added noise that was accounted for, whatever came between.
        """
        files = [file for file in reversed(self._rounds(run_key)) if _round(file) < number]
        return self._first([file for file in files if _is_noised(file)] if noised else files)

    def of_others(self, run_key: str) -> Arrays | None:
        """Return what the newest other run left."""
        return self._first([file for file in self._newest() if _run(file) != run_key])

    def after(self, run_key: str) -> Arrays | None:
        """Return what the run's last round left, else the newest of another run."""
        return self._first([*reversed(self._rounds(run_key)), *self._newest()])

    def keep(
        self, run_key: str, number: int, tensors: Mapping[str, NDArray[np.float32]], *, noised: bool = False
    ) -> None:
        """Keep what a round has learnt, and whether with noise; raises `NoSpaceError` where the disk is full."""
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
        body = save(arrays, {_NOISED: "yes"} if noised else None)
        with space_guard(self._home):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._folder / f"{run_key}.r{number:04d}.safetensors", body)
        rounds = self._rounds(run_key)
        later = [file for file in rounds if _round(file) > number]  # of a try from which the run was resumed
        stale = later + rounds[: -_ROUNDS - len(later)]
        runs = list(dict.fromkeys(_run(file) for file in self._newest()))
        stale += [file for file in self._newest() if _run(file) in runs[_RUNS:]]
        for file in stale:
            file.unlink(missing_ok=True)

    def _rounds(self, run_key: str) -> list[Path]:
        found = [file for file in self._folder.glob("*.safetensors") if _run(file) == run_key]
        return sorted(found, key=_round)

    def _newest(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"), key=lambda file: (-file.stat().st_mtime_ns, -_round(file)))

    def _first(self, files: list[Path]) -> Arrays | None:
        for file in files:
            try:
                return load(file.read_bytes())
            except (OSError, SafetensorError, ValueError):
                log.warning("training.normalisation_damaged", file=file.name)
        return None


def _is_noised(file: Path) -> bool:
    try:
        with safe_open(file, framework="numpy") as kept:
            return (kept.metadata() or {}).get(_NOISED) == "yes"
    except (OSError, SafetensorError):
        return False


def _run(file: Path) -> str:
    return file.name.removesuffix(".safetensors").rpartition(".r")[0]


def _round(file: Path) -> int:
    return int(file.name.removesuffix(".safetensors").rpartition(".r")[2])
