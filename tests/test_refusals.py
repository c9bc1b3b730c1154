"""The page of refusals says what the code says: every test it names exists, every code has that exit status, and every
sentence that it quotes stands in the code (or, for Flower's own, in the test that sees it)."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from shared.contracts.errors import HematovisionError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "refusals.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what is tried")]
CODES = {subclass.code: int(subclass.exit_code) for subclass in HematovisionError.__subclasses__()}
_NAMED = re.compile(r"`(tests/[^`]+)::(\w+)`")
_QUOTED = re.compile(r"“([^”]+)”")


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _sentences(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module; what an f-string fills in is ``…``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"\{\w*\}", "…", node.value)


@cache
def _said() -> tuple[str, ...]:
    files = [file for folder in ("client_node", "server", "shared") for file in (ROOT / folder).rglob("*.py")]
    return tuple(text for file in files for text in _sentences(_tree(file)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_row_is_true(row: str) -> None:
    named = _NAMED.findall(row)
    assert named
    texts = list(_said())
    for file, test in named:
        tree = _tree(ROOT / file)
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
        texts += _sentences(tree)
    for code, status in re.findall(r"`([a-z_]+)` \((\d+)\)", row):
        assert CODES[code] == int(status)
    for quoted in _QUOTED.findall(row):
        assert any(quoted.rstrip(".") in text for text in texts), quoted


@pytest.mark.parametrize(
    "what",
    ["rogue app", "key nobody approved", "another authority's certificate", "altered on their way", "earlier round",
     "kit past its date", "kit used before", "no contract's", "privacy floor"],
)  # fmt: skip
def test_what_the_network_must_refuse_has_a_row(what: str) -> None:
    assert any(what in row.split("|")[1] for row in ROWS)
