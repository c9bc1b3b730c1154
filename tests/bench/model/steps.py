"""Pieces of the bench that are kept on disk: a run that is killed loses the piece at hand, and no more.

A piece is one JSON file: its result, the key of all facts that the result depends on, and the seconds it took. It is
taken from there as long as its facts agree. What the pieces within it took stands beside it, by their files: pieces
share others (a model serves many sections), whose time counts once.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

Json = Any
"""What `json` reads and writes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that is done."""

    key: str
    seconds: float
    """Without the pieces within it."""
    result: Json
    within: dict[str, float] = field(default_factory=dict)
    """File of each piece within it → seconds."""


def key_of(facts: Json) -> str:
    """Return the key of ``facts``."""
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Steps:
    """Makes pieces, or takes them from where an earlier run has left them."""

    def __init__(self) -> None:
        self._stack: list[tuple[list[float], dict[str, float]]] = []
        """Of each piece at hand: seconds just spent on pieces within it, and what those took when they were made."""

    def run(self, file: Path, facts: Json, work: Callable[[], Json], *, again: bool = False) -> Piece:
        """Return the piece in ``file``, made by ``work`` if it is not there for these facts, or ``again``."""
        piece = None if again else stored(file, facts)
        if piece is None:
            piece = self._made(file, facts, work)
        if self._stack:
            self._stack[-1][1].update({str(file): piece.seconds} | piece.within)
        return piece

    def _made(self, file: Path, facts: Json, work: Callable[[], Json]) -> Piece:
        spent, within = list[float](), dict[str, float]()
        self._stack.append((spent, within))
        begin = time.monotonic()
        try:
            result = work()
        finally:
            self._stack.pop()
            took = time.monotonic() - begin
            if self._stack:
                self._stack[-1][0].append(took)
        piece = Piece(key_of(facts), took - sum(spent), result, within)
        _write(file, piece, facts)
        return piece


def stored(file: Path, facts: Json) -> Piece | None:
    """Return the piece in ``file`` if it was made from these facts."""
    try:
        kept = json.loads(file.read_text())
        piece = Piece(kept["key"], kept["seconds"], kept["result"], kept["within"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return piece if piece.key == key_of(facts) else None


def _write(file: Path, piece: Piece, facts: Json) -> None:
    kept = {"key": piece.key, "seconds": piece.seconds, "within": piece.within, "facts": facts, "result": piece.result}
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)
