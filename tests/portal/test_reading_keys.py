"""The reading room's keys: each does one thing that the script knows, and every button's action has one."""

import gzip
import re
from collections import Counter
from pathlib import Path

from portal import reading_keys
from portal.static_files import STATIC
from tests.portal.client import Browser
from tests.portal.factories import Network

SCRIPT = (STATIC / "js/reading/main.js").read_text()
TEMPLATES = STATIC.parent / "templates/reading"
LARGEST = 150_000


def _actions() -> set[str]:
    table = SCRIPT[SCRIPT.index("const ACTIONS = {") : SCRIPT.index("const menu =")]
    return set(re.findall(r"^  (\w+)[:,]", table, re.MULTILINE))


def test_every_key_has_its_action_and_every_action_its_key() -> None:
    entries = [entry for _, group in reading_keys.GROUPS for entry in group]
    assert {entry.does for entry in entries} == _actions()
    assert max(Counter(key for entry in entries for key in entry.keys).values()) == 1


def test_every_button_of_the_room_does_what_a_key_does() -> None:
    pages = "".join(path.read_text() for path in TEMPLATES.glob("*.html"))
    assert set(re.findall(r'data-does="(\w+)"', pages)) <= _actions()


def test_key_map_shows_every_action(reader: Browser, network: Network) -> None:
    page = reader.get(f"/cases/{network.cases[0]}").text
    shown = {entry.words for _, group in reading_keys.GROUPS for entry in group if entry.words}
    assert {words for words in shown if words not in page} == set()


def test_scripts_of_the_room_stay_small() -> None:
    def packed(path: Path) -> int:
        return len(gzip.compress(path.read_bytes()))

    vendor = STATIC / "vendor/openseadragon/openseadragon.min.js"
    own = sum(packed(path) for path in (STATIC / "js").rglob("*.js"))
    assert packed(vendor) + own <= LARGEST
