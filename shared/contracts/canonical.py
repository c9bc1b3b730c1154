"""One canonical byte form of a contract, for hashing and signing."""

import json

from pydantic import BaseModel


def canonical_bytes(model: BaseModel) -> bytes:
    """Return ``model`` as UTF-8 JSON, keys sorted, no spaces, by alias: the bytes that are hashed and signed."""
    return json.dumps(
        model.model_dump(mode="json", by_alias=True),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
