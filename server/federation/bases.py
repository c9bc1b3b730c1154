"""Whole pretrained networks in the object store, under their own hash: put there once, for nodes that lack them."""

from contextlib import suppress
from pathlib import Path

from sqlmodel import Session

import server.audit.service as audit
from server.hospitals.schemas import NodePrincipal
from shared.contracts.errors import ConflictError, NotFoundError
from shared.storage import ObjectStore


def base_key(base_sha256: str) -> str:
    """Return where the store keeps the base of this hash."""
    return f"bases/{base_sha256}.safetensors"


def is_kept(store: ObjectStore, base_sha256: str) -> bool:
    """Whether nodes can fetch this base."""
    return store.head(base_key(base_sha256)) is not None


def keep(store: ObjectStore, base_sha256: str, file: Path) -> None:
    """Put a base there, unless it is: what has one hash is the same."""
    if not is_kept(store, base_sha256):
        with suppress(ConflictError):  # another launch was faster
            store.put(base_key(base_sha256), file.read_bytes(), if_absent=True)


def read(session: Session, store: ObjectStore, node: NodePrincipal, base_sha256: str) -> bytes:
    """Return a base to a node that lacks it, and write that down for its hospital.

    Raises:
        NotFoundError: no run that was launched here needs it.
    """
    if not is_kept(store, base_sha256):
        raise NotFoundError("The centre keeps no base weights of this hash.")
    body = store.get(base_key(base_sha256))
    audit.record(
        session,
        subject=f"hospital:{node.hospital_id}",
        actor=node.actor,
        action="federation.base_fetched",
        data={"base": base_sha256, "bytes": len(body)},
    )
    return body
