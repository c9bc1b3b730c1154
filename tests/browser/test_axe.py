"""axe-core finds nothing serious on any page or dialog, light and dark; the content security policy stays in force."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.screenshots import Shot, bare, crowded_pictured, pictured
from tests.browser.world import CHROMIUM, chromium, serving, sign_in
from tests.portal.factories import Network, staffed

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]

AXE: Final = Axe()
BAD: Final = {"serious", "critical"}
# What a page is, is the same in both themes: only its colours are looked at again in the dark.
LOOKS: Final[tuple[tuple[Literal["light", "dark"], dict[str, list[str]]], ...]] = (
    ("light", {"resultTypes": ["violations"]}),
    ("dark", {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}),
)
_STILL: Final = "() => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))"
"""Colours are looked at once they have stopped changing."""


MADE: Final[dict[str, Callable[[Path], tuple[Network, list[Shot]]]]] = {
    "full": pictured,
    "empty": lambda folder: (staffed(folder), bare()),
    "crowded": crowded_pictured,
}


@pytest.fixture(params=MADE)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Network, list[Shot]]]:
    """A centre and the pages to look at; made before the browser, whose event loop would forbid the PDF signer's."""
    network, pages = MADE[request.param](tmp_path)
    yield network, pages
    network.centre.runtime.database.dispose()


def test_axe_finds_nothing_serious(world: tuple[Network, list[Shot]]) -> None:
    network, wanted = world
    by_person: dict[str, list[Shot]] = defaultdict(list)
    for shot in wanted:
        by_person[shot.username].append(shot)
    faults: list[str] = []
    with serving(network) as address, chromium() as browser:
        for person, theirs in by_person.items():
            page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
            page.set_default_timeout(120_000)  # a busy machine is no fault of a page
            if person:
                sign_in(page, address, person)
            for shot in theirs:
                open_page(page, address, shot)
                faults += faults_of(page, shot)
                page.unroute_all()
            page.context.close()
    assert faults == []


def open_page(page: Page, address: str, shot: Shot) -> None:
    """Open the page under its policy and bring it into its state."""
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    answer = page.goto(f"{address}{shot.path}")
    assert answer is not None
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    if shot.act:
        shot.act(page)


def faults_of(page: Page, shot: Shot) -> list[str]:
    """Return what axe finds serious or critical on the page as it stands, in both themes."""
    found: list[str] = []
    for theme, options in LOOKS:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.evaluate(_STILL)
        answer = AXE.run(page, options=options).response
        found += [_said(shot, theme, one) for one in answer["violations"] if one["impact"] in BAD]
    return found


def _said(shot: Shot, theme: str, violation: dict[str, Any]) -> str:  # Any: axe's JSON
    places = [f"{node['target'][0]} {' '.join(one['message'] for one in node['any'])}" for node in violation["nodes"]]
    return f"{shot.name}, {theme}: {violation['id']}: {violation['help']}: {'; '.join(places[:4])}"
