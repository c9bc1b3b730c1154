"""One reader, two computers or tabs: a text that went on in one is neither wiped nor sent again by the other."""

import pytest
from playwright.sync_api import Page, Route, expect

from server.reviews import opinions
from server.reviews import service as reviews
from tests.browser.conftest import OpenRoom
from tests.browser.room import READY, Room
from tests.browser.test_drafts import open_blind
from tests.browser.world import CHROMIUM
from tests.portal.drawn import DrawnSmear
from tests.portal.factories import Network

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


def _kept(room: Room) -> str:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return reviews.impression(session, room.network.people["reader"], room.case_id)


def _load_again(page: Page) -> None:
    page.reload()
    page.wait_for_selector(READY)
    page.keyboard.press("Control+Enter")


def test_page_that_stood_open_does_not_wipe_what_was_written_at_another_computer(room: Room) -> None:
    page = room.page
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    with room.network.centre.runtime.database.session() as session:
        reviews.save_impression(session, room.network.people["reader"], room.case_id, "Left shift. Toxic granulation.")
    page.locator("#impression").fill("Left shift, mild.")
    expect(page.locator("#draft")).to_contain_text("at another computer")
    assert _kept(room) == "Left shift. Toxic granulation."
    _load_again(page)
    expect(page.locator("#impression")).to_have_value("Left shift. Toxic granulation.")
    page.locator("#sign-form .was").get_by_role("button", name="Use it").click()
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    assert _kept(room) == "Left shift, mild."
    room.tell_nothing_of("409")


def test_texts_that_are_saved_faster_than_they_are_answered_are_no_conflict(room: Room) -> None:
    page = room.page
    held: list[Route] = []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route("**/impression", lambda route: route.continue_() if held else held.append(route))
    page.keyboard.press("Control+Enter")
    for text in ("One.", "Two.", "Three."):
        page.locator("#impression").fill(text)
        page.wait_for_timeout(900)  # longer than a save waits for further keys
    assert sum(url.endswith("/impression") for url in asked) == 1  # one after the other
    held[0].continue_()
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    for _ in range(100):  # the newest text is sent after the one that was held
        if _kept(room) == "Three.":
            break
        page.wait_for_timeout(100)
    assert _kept(room) == "Three."


def test_blind_text_that_went_on_at_another_computer_is_not_wiped(
    network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    room, case_id = open_blind(network, open_room, drawn)
    page, reader = room.page, network.people["reader"]
    page.keyboard.press("Control+Enter")
    page.locator("#estimate-neutrophil").fill("61,5")
    expect(page.locator("#blind-draft")).to_have_text("Draft kept.")
    with network.centre.runtime.database.session() as session:
        opinions.keep_draft(session, reader, case_id, text="One blast.", estimate={})
    page.locator("#blind-text").fill("No blast.")
    expect(page.locator("#blind-draft")).to_contain_text("at another computer")
    _load_again(page)
    expect(page.locator("#blind-text")).to_have_value("One blast.")
    expect(page.locator("#blind .was")).to_contain_text("No blast.")
    room.tell_nothing_of("409")


def test_question_that_was_sent_in_one_tab_is_gone_from_the_other(room: Room) -> None:
    first, second = room.page, room.page.context.new_page()
    second.goto(f"/cases/{room.case_id}")
    second.wait_for_selector(READY)
    for page in (first, second):
        page.keyboard.press("Shift+C")
    first.locator("#ask-who").select_option(label="Dr. M. Osei")
    first.locator("#ask-text").fill("Is this a blast?")
    expect(second.locator("#ask-text")).to_have_value("Is this a blast?")
    first.locator("#ask-text").press("Control+Enter")
    expect(first.locator(".thread .said p")).to_have_text(["Is this a blast?"])
    expect(second.locator("#ask-text")).to_have_value("")
    expect(second.locator(".thread .said p")).to_have_text(["Is this a blast?"])
