"""What the scripts of all pages weigh on the wire."""

from typing import Final

from portal.static_files import STATIC, packed

LIMIT: Final = 150_000
"""Bytes that all scripts together may have, each by gzip."""


def sizes() -> dict[str, int]:
    """Return script → bytes by gzip, the heaviest first."""
    found = {str(path.relative_to(STATIC)): len(packed(path)) for path in STATIC.rglob("*.js")}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
