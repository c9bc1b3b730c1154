"""The update of the last private round, kept until another takes its place, to be sent again where it was lost.

Sending the same noised numbers twice spends nothing; training the round anew would, and finds ε spent where the round
was the run's last. Kept in ``H/training/private-last/``, before the charge says that the round may have left.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client_node.training.manifest import write_atomically
from client_node.training.model_store import Tensors
from shared.contracts.training import TrainReply, TrainRequest

_FOR: Final = "request"
_REPLY: Final = "reply"

log = structlog.get_logger(__name__)


class KeptUpdate:
    """The last private round's answer, for one request with the tensors that came with it."""

    def __init__(self, home: Path, request: TrainRequest, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        self._file = home / "training" / "private-last" / "update.safetensors"
        asked = request.model_dump_json(exclude={"nonce", "participants"})  # both may differ when it is asked again
        whole = hashlib.sha256(asked.encode())
        whole.update(_packed(tensors))
        self._key = whole.hexdigest()

    def keep(self, reply: TrainReply, update: Tensors) -> None:
        """Keep an answer in place of the one before; raises `NoSpaceError` where the disk is full."""
        body = _packed(update, {_FOR: self._key, _REPLY: reply.model_dump_json()})
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._file, body)

    def found(self) -> tuple[TrainReply, Tensors] | None:
        """Return the answer that was kept for this very request, or None."""
        try:
            with safe_open(self._file, framework="numpy") as kept:
                facts = kept.metadata() or {}
                if facts.get(_FOR) != self._key:
                    return None
                reply = TrainReply.model_validate_json(facts.get(_REPLY, ""))
                return reply, {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118  # no mapping
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValidationError) as error:
            log.warning("training.kept_update_damaged", reason=str(error)[:200])
            return None


def _packed(tensors: Mapping[str, NDArray[np.generic]], facts: dict[str, str] | None = None) -> bytes:
    return bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, facts))
