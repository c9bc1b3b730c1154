"""Reading a case in a real browser: by key, by click, without a mouse, and without one breach of the policy."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from server.cases import service as cases
from server.cases.schemas import CaseView
from shared.contracts.ontology import CellClass
from tests.browser.world import CHROMIUM, chromium, serving, sign_in
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear, draw_smears, send_case
from tests.portal.factories import Network, add_hospital, staffed

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


@dataclass
class Room:
    """A page at the reading room of a case, and what the browser complained about."""

    page: Page
    network: Network
    complaints: list[str]

    @property
    def case_id(self) -> str:
        """The newest case."""
        return self.network.cases[-1]

    def case(self) -> CaseView:
        """The case as the centre has it."""
        with self.network.centre.runtime.database.session(read_only=True) as session:
            return cases.case_view(session, self.network.people["reader"], self.case_id)

    def chosen(self) -> str:
        """Which cell is chosen."""
        return self.page.locator('.tile[aria-selected="true"]').first.get_attribute("data-cell") or ""

    def saved(self) -> None:
        """Wait until the centre has it all."""
        expect(self.page.locator("#saved")).to_have_text("saved")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = staffed(tmp_path_factory.mktemp("centre"))
    add_hospital(made, "a")
    yield made
    made.centre.runtime.database.dispose()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[DrawnSmear]:
    return draw_smears(tmp_path_factory.mktemp("drawn"), cells_per_field=6)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(network: Network) -> Iterator[str]:
    with serving(network) as served:
        yield served


@pytest.fixture
def room(network: Network, drawn: list[DrawnSmear], browser: Browser, address: str) -> Iterator[Room]:
    """Signed in, case claimed, gallery drawn."""
    with_fields = [one for one in drawn if one.smear.fields and one.smear.flags]
    send_case(network, "a", with_fields[0])
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page, complaints = context.new_page(), list[str]()

    def complain(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(f"{message.text} {message.location}")

    page.on("console", complain)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    sign_in(page, address, "reader")
    made = Room(page, network, complaints)
    page.goto(f"{address}/cases/{made.case_id}")
    page.get_by_role("button", name="Claim to read").click()
    page.wait_for_selector("#open-sign")
    page.wait_for_selector(".boxes g")
    yield made
    context.close()
    assert made.complaints == []


def test_class_by_key_then_undo(room: Room) -> None:
    before = {cell.cell_id: cell.current_class for cell in room.case().cells}
    room.page.keyboard.press("j")
    cell = room.chosen()
    key, label = ("3", CellClass.MONOCYTE) if before[cell] is not CellClass.MONOCYTE else ("2", CellClass.LYMPHOCYTE)
    room.page.keyboard.press(key)
    room.saved()
    assert {c.cell_id: c.current_class for c in room.case().cells} == {**before, cell: label}
    expect(room.page.locator("#changes")).to_have_text("1 set by hand")
    room.page.keyboard.press("u")
    expect(room.page.locator("#changes")).to_have_text("")
    assert {c.cell_id: c.current_class for c in room.case().cells} == before


def test_class_by_click_on_box_and_button(room: Room) -> None:
    target = room.page.locator(".boxes g").last.bounding_box()
    assert target is not None
    room.page.mouse.click(target["x"] + target["width"] / 2, target["y"] + target["height"] / 2)
    cell = room.chosen()
    expect(room.page.locator(f'.tile[data-cell="{cell}"]')).to_be_in_viewport()
    room.page.locator('.key[data-class="artefact"]').click()
    room.saved()
    changed = next(one for one in room.case().cells if one.cell_id == cell)
    assert (changed.current_class, changed.changed_by) == (CellClass.ARTEFACT, "Dr. A. Reader")


def test_choice_in_the_gallery_shows_the_cell_in_its_field(room: Room) -> None:
    other = next(cell for cell in room.case().cells if cell.field == 2)
    room.page.locator(f'.tile[data-cell="{other.cell_id}"]').click()
    expect(room.page.locator("#field-position")).to_have_text("3 of 3")
    expect(room.page.locator(".boxes .chosen")).to_have_count(1)


def test_change_made_without_a_connection_is_sent_later_and_once(room: Room) -> None:
    room.page.keyboard.press("j")
    cell = room.chosen()
    room.page.context.set_offline(True)
    room.page.keyboard.press("x")
    expect(room.page.locator("#saved")).to_contain_text("waits for the connection")
    room.page.context.set_offline(False)
    room.saved()
    changed = [one for one in room.case().cells if one.changed_by]
    assert [(one.cell_id, one.current_class) for one in changed] == [(cell, CellClass.ARTEFACT)]
    room.complaints[:] = [text for text in room.complaints if "ERR_INTERNET_DISCONNECTED" not in text]


def test_page_never_scrolls_as_a_whole(room: Room) -> None:
    assert room.page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    assert room.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_whole_reading_without_a_mouse(room: Room) -> None:
    page = room.page
    page.keyboard.press("?")
    expect(page.locator("#keymap")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press(".")
    page.keyboard.press("x")
    room.saved()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#impression")).to_be_focused()
    page.keyboard.type("Left shift, no blasts seen.")
    while not page.locator("#password").evaluate("field => field === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-error")).to_be_visible()
    expect(page.locator("#password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/*")
    expect(page.get_by_text("Left shift, no blasts seen.")).to_be_visible()
    room.complaints[:] = [text for text in room.complaints if "401" not in text]


def test_worklist_filters_while_typing_and_opens_by_key(room: Room) -> None:
    page = room.page
    page.keyboard.press("g")
    page.keyboard.press("w")
    page.wait_for_url("**/worklist")
    page.keyboard.press("/")
    page.keyboard.type("nothing like it")
    expect(page.get_by_text("No case fits these filters")).to_be_visible()
    expect(page.locator("#search")).to_be_focused()
    page.locator("#search").fill(room.case_id.lower())
    expect(page.locator(".rows tbody tr")).to_have_count(1)
    page.locator("#search").blur()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{room.case_id}")
