"""The tensors after each round and what the strategy keeps beside them; round 0 is what a run starts from."""

import numpy as np
from safetensors.numpy import load as load_safetensors

from server.federation.strategies.tensors import Tensors, stored_tensors
from shared.contracts.errors import NotFoundError, RunFailedError
from shared.storage import ObjectStore


def key(run_id: str, number: int) -> str:
    """Return where a round's tensors lie."""
    return f"federation/{run_id}/round-{number:04d}.safetensors"


def state_key(run_id: str, number: int) -> str:
    """Return where the strategy's state after a round lies."""
    return f"federation/{run_id}/round-{number:04d}.state.safetensors"


def save(store: ObjectStore, run_id: str, number: int, tensors: Tensors, state: Tensors | None = None) -> None:
    """Store a round's tensors and the strategy's state.

    A put is atomic, and a round counts only when its row says that it has ended, after both: a killed run repeats the
    round and writes both again.
    """
    if state is not None:
        store.put(state_key(run_id, number), stored_tensors(state))
    store.put(key(run_id, number), stored_tensors(tensors))


def load(store: ObjectStore, run_id: str, number: int) -> bytes:
    """Return a round's tensors."""
    return _get(store, key(run_id, number))


def last(store: ObjectStore, run_id: str, at_most: int) -> int:
    """Return the newest round up to ``at_most`` that left a checkpoint; 0: what the run starts from.

    A round that ended without enough updates has left none.
    """
    return next((number for number in range(at_most, 0, -1) if store.head(key(run_id, number)) is not None), 0)


def load_state(store: ObjectStore, run_id: str, number: int) -> Tensors:
    """Return the strategy's state after a round; nothing before the first."""
    if not number:
        return {}
    body = _get(store, state_key(run_id, number))
    return {name: array.astype(np.float32, copy=False) for name, array in load_safetensors(body).items()}


def _get(store: ObjectStore, name: str) -> bytes:
    try:
        return store.get(name)
    except NotFoundError as error:
        raise RunFailedError("The run's checkpoint is gone from the object store; launch a new run.") from error
