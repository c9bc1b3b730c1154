"""Every route of the portal, tried by every role on its own hospital's objects and on another's.

A route without a line in `MATRIX` fails, and so does a line without a route: whoever adds a page says there who may
have it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from portal.access import PUBLIC, RULES
from tests.portal.factories import SITES
from tests.portal.matrix import OTHER, OWN, ROLES, World, every_route, make_world
from tests.portal.matrix_rows import MATRIX

CELLS = [(name, column) for name in MATRIX for column in ROLES]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("centre"))
    yield made
    made.client.close()
    made.network.centre.runtime.database.dispose()


def test_every_route_has_a_rule_and_a_line_in_the_matrix(world: World) -> None:
    assert set(every_route(world.app)) == set(RULES) == set(MATRIX)


@pytest.mark.parametrize("name", MATRIX)
def test_line_asks_the_route_it_names_and_tells_every_outcome(world: World, name: str) -> None:
    row, route = MATRIX[name], every_route(world.app)[name]
    method, _, path = row.asked.partition(" ")
    assert method in (route.methods or ())
    assert route.path_regex.fullmatch(re.sub(r"\{\w+\}", "x", path.partition("?")[0])), "another route's address"
    assert len(row.outcomes.split()) == len(ROLES)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule != PUBLIC])
def test_nobody_gets_nothing_that_is_not_public(name: str) -> None:
    assert MATRIX[name].outcomes.split()[0] in {"login", "401"}


@pytest.mark.parametrize(("name", "column"), CELLS, ids=lambda part: part)
def test_cell(world: World, name: str, column: str) -> None:
    row = MATRIX[name]
    method, _, path = row.asked.partition(" ")
    world.restore_if_changed()
    world.changed = method == "POST"
    further = row.before(world) if row.before else {}
    hospital = OTHER if column == "other" else OWN
    address = path.format_map({**world.things[hospital], **further})
    answer = world.ask(column, method, address, {**row.fields, **further})
    assert _outcome(answer) == row.outcomes.split()[ROLES.index(column)], answer.text[:500]
    # What a link to an invitation shows is for whoever holds the link.
    if column in {"own", "other"} and RULES[name] != PUBLIC:
        assert _of_the_other_hospital(world, answer) == []


def _outcome(answer: httpx2.Response) -> str:
    to_sign_in = answer.status_code == 303 and answer.headers["location"].startswith("/login")
    return "login" if to_sign_in else str(answer.status_code)


def _of_the_other_hospital(world: World, answer: httpx2.Response) -> list[str]:
    """Return what an answer to hospital a's staff tells of hospital b."""
    if "application/pdf" in answer.headers.get("content-type", ""):
        return []
    theirs = [SITES[OTHER], *(world.things[OTHER][kind] for kind in ("case", "signed", "report", "node", "waiting"))]
    asked = answer.request.url.path
    found = [name for name in theirs if name in answer.text and name not in asked]
    # A hospital's id is one letter here: where it stands alone, or is a key or a value of its own.
    words = re.sub(r"<svg.*?</svg>|<script.*?</script>|<kbd>.*?</kbd>", " ", answer.text, flags=re.DOTALL)
    if re.search(rf"(?:^|[\s>,]){OTHER}(?: trained|: |, | did | refused|<|\"|$)", words, flags=re.MULTILINE):
        found.append("a line on it")
    if "json" in answer.headers.get("content-type", ""):
        found += _named(json.loads(answer.text))
    return found


def _named(value: Any) -> list[str]:  # Any: whatever a route answers as JSON
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [found for part in value for found in _named(part)]
    return ["its id"] if value == OTHER else []
