"""One trainer of the simulation: a process that answers for one hospital after another, as each one's own would.

Torch is imported by the trainers alone: who hands out the work imports this module too, and is measured as the server.
"""

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from shared.vision.device import THREADS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_node.trainer import TrainerServer

Told = tuple[str, str, bytes, int]
"""Reply, seal, tensors, and the resident bytes of the process that gave them."""


def prepare(threads: int) -> None:
    """Set this process up: how many threads it computes with, and that it logs problems alone."""
    os.environ[THREADS_VARIABLE] = str(threads)  # ONNX Runtime's too, which would take every core for each process

    import torch

    from shared.logging import configure_logging

    torch.set_num_threads(threads)
    configure_logging("trainer", level="WARNING")


@cache
def _servers() -> "Callable[[Path], TrainerServer]":
    """Return what makes a hospital's trainer; the model in memory depends on the recipe alone, and is all theirs."""
    from client_node.ipc import Stop
    from client_node.trainer import TrainerServer
    from client_node.training.model_store import ModelStore

    models, stop = ModelStore(), Stop()
    return lambda home: TrainerServer(home, stop=stop, models=models)


def get_ready() -> None:
    """Load what answering needs: a resident trainer has it before it is asked."""
    _servers()


def answer(home: str, request: str, tensors: bytes) -> Told:
    """Answer a request (JSON) and its tensors for the hospital in ``home``."""
    header, update = _servers()(Path(home)).handle({"op": "federate", "request": request}, tensors)
    return str(header["reply"]), str(header["seal"]), update, int(psutil.Process().memory_info().rss)
