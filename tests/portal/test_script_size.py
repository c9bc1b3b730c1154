"""All scripts of the pages together stay light."""

from pathlib import Path
from typing import Final

from tests.portal.scripts import LIMIT, sizes

KNOWN: Final = Path(__file__).with_name("script-sizes.txt")
"""What each script weighed when this was last looked at: `bytes path`, for saying which grew."""


def test_all_scripts_together_are_below_150_kb() -> None:
    now = sizes()
    total = sum(now.values())
    assert total <= LIMIT, f"{total} bytes by gzip; grown: {'; '.join(grown(now, known()))}"


def test_what_grew_is_said_largest_first() -> None:
    told = grown({"a.js": 900, "b.js": 120, "new.js": 300}, {"a.js": 400, "b.js": 120, "gone.js": 50})
    assert told == ["a.js 400 → 900", "new.js 0 → 300"]


def known() -> dict[str, int]:
    """Return the sizes that were written down."""
    return {name: int(size) for size, name in (line.split(maxsplit=1) for line in KNOWN.read_text().splitlines())}


def grown(now: dict[str, int], before: dict[str, int]) -> list[str]:
    """Say which scripts grew, by how much, the one that grew most first."""
    more = {name: size - before.get(name, 0) for name, size in now.items() if size > before.get(name, 0)}
    return [f"{name} {before.get(name, 0)} → {now[name]}" for name in sorted(more, key=lambda name: -more[name])]
