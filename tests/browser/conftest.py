"""A centre with one hospital, a browser, and a reading room that is open in it."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.browser.room import READY, Room
from tests.browser.world import chromium, serving, sign_in
from tests.portal.drawn import DrawnSmear, draw_smears, send_case
from tests.portal.factories import Network, add_hospital, staffed

OpenRoom = Callable[..., Room]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = staffed(tmp_path_factory.mktemp("centre"))
    add_hospital(made, "a")
    yield made
    made.centre.runtime.database.dispose()


@pytest.fixture(scope="session")
def drawn() -> list[DrawnSmear]:
    return list(draw_smears(cells_per_field=6))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(network: Network) -> Iterator[str]:
    with serving(network) as served:
        yield served


@pytest.fixture
def open_room(network: Network, browser: Browser, address: str) -> Iterator[OpenRoom]:
    """Return a function that sends a smear and opens its case: signed in, gallery drawn, claimed unless told not to.

    Whatever the browser complains about fails the test.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    forgiven: list[str] = []

    def watch(page: Page) -> None:
        def complain(message: ConsoleMessage) -> None:
            if message.type == "error":
                complaints.append(f"{message.text} {message.location}")

        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))

    def opened(
        smear: DrawnSmear, *, claim: bool = True, width: int = 1440, height: int = 900, touch: bool = False
    ) -> Room:
        send_case(network, "a", smear)
        context = browser.new_context(viewport={"width": width, "height": height}, base_url=address, has_touch=touch)
        contexts.append(context)
        context.on("page", watch)
        page = context.new_page()
        sign_in(page, address, "reader")
        made = Room(page, network, forgiven)
        page.goto(f"/cases/{made.case_id}")
        if claim:
            page.get_by_role("button", name="Claim to read").click()
            page.wait_for_selector("#open-sign")
        page.wait_for_selector(READY)
        if smear.smear.fields:
            page.wait_for_selector(".boxes g")
        return made

    yield opened
    for context in contexts:
        context.close()
    assert [text for text in complaints if not any(word in text for word in forgiven)] == []


@pytest.fixture
def room(open_room: OpenRoom, drawn: list[DrawnSmear]) -> Room:
    """A flagged smear with fields, claimed: the one whose doubts are of most classes, and most of them."""
    flagged = [one for one in drawn if one.smear.fields and one.smear.flags]
    return open_room(max(flagged, key=_doubts))


def _doubts(drawn: DrawnSmear) -> tuple[int, int]:
    doubtful = [cell for cell in drawn.smear.cells if cell.doubtful]
    return len({cell.cls for cell in doubtful}), len(doubtful)
