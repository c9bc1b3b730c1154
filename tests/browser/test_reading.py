"""Reading a case in a real browser: by key, by click, without a mouse, and without one breach of the policy."""

import pytest
from playwright.sync_api import expect

from shared.contracts.ontology import CellClass
from tests.browser.room import Room
from tests.browser.world import CHROMIUM
from tests.factories import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


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
    room.saved()
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
    # The cell's field may have been on its way: its picture comes with the connection too.
    expect(room.page.locator(".viewer-note")).to_be_hidden()
    room.tell_nothing_of("ERR_INTERNET_DISCONNECTED", "failed to load")


def test_field_that_was_opened_without_a_connection_comes_with_it(room: Room) -> None:
    page = room.page
    position = page.locator("#field-position")
    before = position.inner_text()
    page.context.set_offline(True)
    page.locator("#field-previous").click()
    expect(position).not_to_have_text(before)
    note = page.locator(".viewer-note")
    expect(note).to_have_text("The image comes when the connection is back.")
    with page.expect_response("**/tiles/*.jpg") as answer:
        page.context.set_offline(False)
    assert answer.value.ok
    expect(note).to_be_hidden()
    room.tell_nothing_of("ERR_INTERNET_DISCONNECTED", "failed to load")


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
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    expect(page.locator(".unseen")).to_have_count(0)
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
    room.tell_nothing_of("401")


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
