"""Times variants beside each other on one core of a machine that does other things too."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from shared.vision.device import THREADS_VARIABLE


@contextmanager
def one_core() -> Iterator[None]:
    """What is loaded meanwhile computes on one core, as the goals are for one."""
    before, threads = os.environ.get(THREADS_VARIABLE), torch.get_num_threads()
    os.environ[THREADS_VARIABLE] = "1"
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


def core_ms(variants: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of processor time that each variant takes, ``repeats`` times.

    They run in turn, after one run each that is not counted. On one core that is the time it takes on an idle machine;
    a busy one stretches the clock on the wall, and this one little.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(repeats + 1):
        for name, work in variants.items():
            begin = time.process_time()
            work()
            if number:
                taken[name].append((time.process_time() - begin) * 1e3)
    return taken


def middle(values: list[float]) -> tuple[float, float, float]:
    """Return (median, least, greatest)."""
    return float(np.median(values)), min(values), max(values)
