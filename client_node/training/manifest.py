"""The record of which cells a round trained on; it stays on the node."""

import errno
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from client_node.datasets.labelled import LabelledCell, Origin
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import NoSpaceError
from shared.contracts.training import TrainingManifest, TrainRequest


def write_manifest(
    folder: Path, request: TrainRequest, cells: Sequence[LabelledCell], *, salt: str = ""
) -> tuple[str, int]:
    """Write the round's manifest below ``folder``; return its SHA-256 (hex) and how many cells are feedback.

    Raises `NoSpaceError` where the disk is full.
    """
    feedback = tuple(sorted(cell.hash for cell in cells if cell.origin is Origin.FEEDBACK))
    manifest = TrainingManifest(
        run_key=request.run_key,
        round=request.round,
        cells=tuple(sorted(cell.hash for cell in cells)),
        feedback_cells=feedback,
        salt=salt,
    )
    body = canonical_bytes(manifest)
    write_atomically(folder / f"{request.run_key}-r{request.round}.json", body)
    return sha256(body).hexdigest(), len(feedback)


def write_atomically(file: Path, body: bytes) -> None:
    """Write ``file`` so that it is there whole or not at all; raises `NoSpaceError` where the disk is full."""
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            handle.write(body)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError("The disk of the node's home is full; make room and try again.") from error
        raise
