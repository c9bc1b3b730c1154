"""The averaged tensors after each round, in the object store; round 0 is what a run starts from."""

from server.federation.strategy import Tensors, stored_tensors
from shared.contracts.errors import NotFoundError, RunFailedError
from shared.storage import ObjectStore


def key(run_id: str, number: int) -> str:
    """Return where a round's tensors lie."""
    return f"federation/{run_id}/round-{number:04d}.safetensors"


def save(store: ObjectStore, run_id: str, number: int, tensors: Tensors) -> None:
    """Store a round's tensors; a put is atomic, so a killed run never leaves half a checkpoint."""
    store.put(key(run_id, number), stored_tensors(tensors))


def load(store: ObjectStore, run_id: str, number: int) -> bytes:
    """Return a round's tensors."""
    try:
        return store.get(key(run_id, number))
    except NotFoundError as error:
        raise RunFailedError("The run's checkpoint is gone from the object store; launch a new run.") from error
