"""The gallery's pictures: many in one answer, and one by one where that fails."""

import pytest
from playwright.sync_api import Request, Route, expect

from tests.browser.room import READY, Room
from tests.browser.world import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]
SHOWN = "images => images.filter((image) => image.complete && image.naturalWidth > 0).length"


def _asked(room: Room) -> list[str]:
    asked: list[str] = []

    def note(request: Request) -> None:
        path = request.url.partition(f"/cases/{room.case_id}/")[2]
        if path.startswith(("images", "blobs")):
            asked.append(path.partition("?")[0])

    room.page.on("request", note)
    return asked


def _all_shown(room: Room) -> None:
    images = room.page.locator(".tile img")
    count = len(room.case().cells)
    expect(images).to_have_count(count)
    # Each looks again when the page has drawn once more.
    for _ in range(100):
        if images.evaluate_all(SHOWN) == count:
            return
        room.page.wait_for_timeout(100)
    raise AssertionError(f"{images.evaluate_all(SHOWN)} of {count} pictures are shown")


def test_pictures_come_many_in_one_answer(room: Room) -> None:
    asked = _asked(room)
    room.page.reload()
    _all_shown(room)
    assert set(asked) == {"images"}
    assert len(asked) <= 1 + -(-len(room.case().cells) // 48)


def test_first_pictures_are_asked_for_by_the_page_and_not_again_by_its_script(room: Room) -> None:
    first = room.page.locator('link[rel="preload"][as="fetch"]').get_attribute("href")
    asked: list[str] = []
    room.page.on("request", lambda request: asked.append(request.url.partition("/cases/")[2]))
    room.page.reload()
    _all_shown(room)
    assert [f"/cases/{path}" for path in asked].count(first or "") == 1


def test_keys_that_were_pressed_before_the_room_was_there_count(room: Room) -> None:
    held: list[Route] = []
    room.page.route("**/main.js", lambda route: held.append(route))
    room.page.reload(wait_until="commit")
    room.page.wait_for_selector(".tile")
    second = room.page.locator(".tile").nth(1).get_attribute("data-cell")
    room.page.keyboard.press("j")
    assert room.page.locator(READY).count() == 0
    held[0].continue_()
    expect(room.page.locator(f'.tile[data-cell="{second}"]')).to_have_attribute("aria-selected", "true")


def test_room_takes_keys_though_its_first_pictures_do_not_come(room: Room) -> None:
    room.page.route("**/images?*", lambda _route: None)  # never answered
    room.page.reload()
    room.page.wait_for_selector(".boxes g")
    expect(room.page.locator("#selected b")).to_be_visible()
    assert room.page.locator(".tile img").evaluate_all(SHOWN) == 0
    before = room.page.locator("#selected b").inner_text()
    room.page.keyboard.press("j")
    expect(room.page.locator("#selected b")).not_to_have_text(before)


def test_pictures_come_one_by_one_where_that_fails(room: Room) -> None:
    asked = _asked(room)
    room.page.route("**/images?*", lambda route: route.fulfill(status=503, body=""))
    room.page.reload()
    _all_shown(room)
    assert sum(path.startswith("blobs/") for path in asked) == len(room.case().cells)
    room.tell_nothing_of("503")
