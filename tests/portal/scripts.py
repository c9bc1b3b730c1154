"""What the scripts of all pages weigh on the wire."""

import gzip
from pathlib import Path
from typing import Final

import portal

STATIC: Final = Path(portal.__file__).parent / "static"
LIMIT: Final = 150_000
"""Bytes that all scripts together may have, each by gzip."""


def sizes() -> dict[str, int]:
    """Return script → bytes by gzip, the heaviest first."""
    found = {
        str(path.relative_to(STATIC)): len(gzip.compress(path.read_bytes(), 9, mtime=0))
        for path in STATIC.rglob("*.js")
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
