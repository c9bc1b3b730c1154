"""Plays arms beside each other, one a core, and keeps each as a piece of the bench; one cut off loses a round."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from shared.contracts.training import Recipe
from shared.vision.backbones import get
from tests.bench.federation.arm import Arm
from tests.bench.federation.play import looks_of, play
from tests.bench.model.bench import Bench
from tests.bench.model.rows import macro_f1
from tests.bench.model.say import say
from tests.bench.model.steps import Json, Steps, key_of, stored

JOBS_VARIABLE: Final = "HEMATOVISION_BENCH_JOBS"
_STEP_SECONDS: Final = 0.05
"""Of a step at 112 px on one core where the last of lite0's seven stages learns, about."""
_A_STAGE: Final = 3.3
"""So many times as long takes a step for each further stage that learns."""
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Played:
    """What an arm's model said."""

    result: Json

    def f1(self, lab: str = "pbc", split: str = "test", look: int = -1) -> float:
        """Return the macro-F1 on a laboratory's cells after the round of a look."""
        return macro_f1(*self.pair(lab, split, look))

    def pair(self, lab: str = "pbc", split: str = "test", look: int = -1) -> tuple[Labels, Labels]:
        """Return (truth, said) of a laboratory's cells."""
        said = self.result["looks"][look]["said"][lab]
        return np.array(said[f"{split} truth"], np.int64), np.array(said[split], np.int64)

    def own(self, lab: str) -> tuple[Labels, bool]:
        """Return what the laboratory's own head says of its test cells, and whether it is kept."""
        said = self.result["looks"][-1]["said"][lab]
        return np.array(said["own"], np.int64), bool(said["kept"][0])

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of a round and hospital, ``down`` and ``up``."""
        found: dict[str, int] = self.result["traffic"]
        return found


def played(bench: Bench, arms: Sequence[Arm]) -> list[Played]:
    """Return what the arms came to, in their order; those that are not there yet are played now."""
    facts = {arm: arm.facts(bench.facts()) for arm in arms}
    files = {arm: bench.work / "arms" / f"{key_of(facts[arm])}.json" for arm in arms}
    missing = [arm for arm in dict.fromkeys(arms) if stored(files[arm], facts[arm]) is None]
    if missing:
        _prepare(bench, missing)
        say(f"{len(missing)} trainings, {jobs()} at a time")
        with _pool() as pool:
            waiting = {
                pool.submit(_play, bench.data, bench.work, bench.quick, arm, files[arm].with_suffix(".part")): arm
                for arm in missing
            }
            for number, done in enumerate(as_completed(waiting), start=1):
                arm = waiting[done]
                bench.steps.run(files[arm], facts[arm], done.result)
                files[arm].with_suffix(".part").unlink(missing_ok=True)
                say(f"training {number} of {len(missing)} took {done.result()['seconds']:.0f} s")
    return [Played(bench.steps.run(files[arm], facts[arm], dict).result) for arm in arms]


def _prepare(bench: Bench, arms: Sequence[Arm]) -> None:
    """Import the cells and compute their maps, before the processes that read them."""
    cells = [cell for lab in ("pbc", "bccd") for cell in bench.cells(lab, "train", "val", "test")]
    for recipe in {looks_of(bench, one).folder: one for one in map(Arm.chosen_recipe, arms)}.values():
        say(f"maps of {len(cells)} cells at {recipe.input_size} px")
        looks_of(bench, recipe).maps(cells)


def jobs() -> int:
    """Return how many arms are played at a time: as many as there are cores, unless the environment says otherwise."""
    return int(os.environ.get(JOBS_VARIABLE, "0")) or min(4, os.cpu_count() or 1)


def seconds(arms: Sequence[Arm], cells: int) -> float:
    """Return what the arms take on two cores, about; ``cells``: that they train on."""
    return sum(arm.steps(cells) * _step_seconds(arm.chosen_recipe()) for arm in arms) / 2 + 20.0


def _step_seconds(recipe: Recipe) -> float:
    entry = get(recipe.backbone)
    more = entry.trunk_blocks - (entry.trunk_blocks if recipe.frozen_stages is None else recipe.frozen_stages)
    return float(_STEP_SECONDS * (recipe.input_size / 112) ** 2 * _A_STAGE ** max(0, more))


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs(), mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _play(data: Path, work: Path, quick: bool, arm: Arm, part: Path) -> Json:
    return play(Bench(data, work, quick, Steps()), arm, part)
